"""An exported model on onnxruntime, with NumPy and Pillow: crops to probabilities without torch.

``training/export.py`` writes the file. Its input ``pixels`` is (B, C, H, W) uint8, since rescaling and normalising are
part of the graph; its output ``logits`` (B, K) float32 are calibrated, as a model's ``logits`` are: their softmax is
what ``probabilities`` gives. All else that a caller needs stands in the file's metadata, each value as JSON:
``labels``, ``size``, ``num_channels``, ``face_template`` and ``face_margin``, and where they were fitted
``conformal_threshold`` and ``conformal_coverage``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .download import ModelError, download_model, split_hub_id

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FILE_NAME = "model.onnx"
METADATA = ("labels", "size", "num_channels", "face_template", "face_margin")
OPTIONAL_METADATA = ("conformal_threshold", "conformal_coverage")


class OnnxClassifier:
    """An exported model as a ``classifier.Classifier``.

    ``path`` is the .onnx file. ``threads`` is how many work on one call; None leaves it to onnxruntime, which takes
    every core. Safe to share between threads. Raises ModelError with one sentence where the file cannot be used.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None):
        self.path = Path(path)
        self.session = _open_session(self.path, threads)
        facts = _read_metadata(self.session, str(path))
        self.labels: tuple[str, ...] = tuple(facts["labels"])
        self.size_px: int = facts["size"]
        self.num_channels: int = facts["num_channels"]
        self.face_template: Sequence[Sequence[float]] | None = facts["face_template"]
        self.face_margin: float = facts["face_margin"]
        self.answer_threshold: float | None = facts["conformal_threshold"]
        self.answer_coverage: float | None = facts["conformal_coverage"]

    def pixels(self, crops: Sequence[Image.Image]) -> np.ndarray:
        """The crops as the graph takes them, (N, C, H, W) uint8: what ``FerImageProcessor.to_uint8`` gives for each."""
        return np.stack([self._to_uint8(crop) for crop in crops])

    def _to_uint8(self, crop: Image.Image) -> np.ndarray:
        mode = "L" if self.num_channels == 1 else "RGB"
        crop = crop if crop.mode == mode else crop.convert("RGB").convert(mode)
        if crop.size != (self.size_px, self.size_px):
            crop = crop.resize((self.size_px, self.size_px), Image.Resampling.BILINEAR)
        return np.asarray(crop, dtype=np.uint8).reshape(self.size_px, self.size_px, -1).transpose(2, 0, 1)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Calibrated logits (N, K) float32 of pixels (N, C, H, W) uint8."""
        return self.session.run(["logits"], {"pixels": pixels})[0]

    def probabilities(self, crops: Sequence[Image.Image]) -> np.ndarray:
        logits = self.logits(self.pixels(crops))
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def find_onnx(name_or_path: str | Path, revision: str | None = None) -> Path:
    """The file of an exported model: an .onnx file itself, ``model.onnx`` in a folder or a Hub id (``user/name@rev``).

    Raises ModelError where there is none.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ModelError(name, "there is no such file; check the path")
        return path
    if not path.is_dir():
        if path.exists():
            raise ModelError(name, "this is neither a folder nor an .onnx file; check the path, or give a Hub id")
        path, _ = download_model(*split_hub_id(name, revision), files=(FILE_NAME,))
    if not (path / FILE_NAME).is_file():
        raise ModelError(name, f"it has no {FILE_NAME}; make one with training/export.py, or use backend='torch'")
    return path / FILE_NAME


def _open_session(path: Path, threads: int | None) -> "InferenceSession":
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            str(path), "backend='onnx' needs onnxruntime, which is not installed; run pip install onnxruntime"
        ) from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(str(path), f"the file cannot be read ({error.strerror}); check the path") from error
    if content.startswith(b"version https://git-lfs"):
        raise ModelError(str(path), "it is only a Git LFS pointer; fetch it with `git lfs pull`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        # From bytes, so that a file cannot name others beside it that would be read too.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # onnxruntime documents no closed set of exceptions for broken files; each is one of its own classes or a
    # RuntimeError, and stays attached as the cause.
    except Exception as error:
        raise ModelError(
            str(path), "it is truncated or not an ONNX file that onnxruntime can run; export it again"
        ) from error


def _read_metadata(session: "InferenceSession", source: str) -> dict[str, Any]:
    stored = session.get_modelmeta().custom_metadata_map
    missing = [key for key in METADATA if key not in stored]
    if missing:
        raise ModelError(
            source, f"its metadata lacks {', '.join(missing)}; export the model with training/export.py, which adds it"
        )
    ends = [[(one.name, one.shape[1:]) for one in end] for end in (session.get_inputs(), session.get_outputs())]
    try:
        facts = {key: json.loads(stored[key]) for key in METADATA} | {
            key: json.loads(stored.get(key, "null")) for key in OPTIONAL_METADATA
        }
        size = [facts["num_channels"], facts["size"], facts["size"]]
        wanted = [[("pixels", size)], [("logits", [len(facts["labels"])])]]
    except (ValueError, TypeError) as error:
        raise ModelError(source, f"its metadata cannot be read ({error}); export it again") from error
    if ends != wanted:
        raise ModelError(source, f"its inputs {ends[0]} and outputs {ends[1]} contradict its metadata; export it again")
    return facts
