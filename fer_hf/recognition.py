"""A photo in, faces with perceived expressions out: the only place that wires the steps between."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image, ImageOps

from .attention import attention_maps, cam_layer, grad_cam
from .classifier import Classifier, TorchClassifier, shared_copy
from .detection import Detection, FaceDetector, MTCNNDetector
from .faces import AlignedFace, Face, Prediction, align_face
from .hub import configured_model, load_model
from .image_io import read_image
from .map_geometry import CellGrid, map_grids, place

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor

MAX_CROPS_AT_ONCE = 256
"""More crops than this go through the network in several calls, which bounds the memory of a crowded batch."""

GRAD_CAM = "grad_cam"
FACE_SOURCES = ("detect", "crop")
BACKENDS = ("torch", "onnx")
BOX_KEYS = ("xmin", "ymin", "xmax", "ymax")

FoundFace = tuple[Face | None, AlignedFace]
"""A face and its crop; no face where the picture was given as a crop."""


@dataclass(frozen=True)
class Recognition:
    """One photo, upright RGB, with its faces, largest first.

    ``skipped`` counts the faces beyond the detector's cap. ``notes`` are remarks for the person, such as that only the
    first frame of an animation was read.
    """

    photo: Image.Image
    predictions: tuple[Prediction, ...]
    skipped: int = 0
    notes: tuple[str, ...] = ()


class ExpressionRecognizer:
    """Reads photos, finds faces and says which expression each is perceived to show.

    Safe to share between threads. ``detector`` is made when the first face is looked for, unless one is given.
    """

    def __init__(self, classifier: Classifier, detector: FaceDetector | None = None):
        self.classifier = classifier
        self._detector = detector
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @classmethod
    def from_model(
        cls, model: "PreTrainedModel", processor: "BaseImageProcessor", detector: FaceDetector | None = None
    ) -> Self:
        """A recognizer around a loaded model of any image classification architecture and its image processor."""
        return cls(TorchClassifier(model, processor), detector)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        device: "str | torch.device" = "cpu",
        dtype: "str | torch.dtype | None" = None,
        trust_remote_code: bool = False,
        backend: str = "torch",
        detector: FaceDetector | None = None,
    ) -> Self:
        """A recognizer with a model by path or Hub id (``user/name@revision``).

        None takes the one that FER_MODEL names, else the embedded one. ``backend="onnx"`` runs its exported file, or an
        .onnx file that is named, on the CPU with onnxruntime; it shows no attention. Raises ``hub.ModelError`` with one
        sentence.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}; {backend!r} was given")
        name_or_path = configured_model() if name_or_path is None else name_or_path
        if backend == "onnx":
            from .onnx import OnnxClassifier, find_onnx

            if str(device) != "cpu" or dtype not in (None, "auto"):
                raise ValueError(
                    f"backend='onnx' runs on the CPU in the precision of its file; device {device} and dtype {dtype} "
                    "were given: leave them out, or use backend='torch'"
                )
            return cls(OnnxClassifier(find_onnx(name_or_path, revision)), detector)
        loaded = load_model(name_or_path, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code)
        return cls.from_model(loaded.model.to(device), loaded.processor, detector)

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's class names in order."""
        return self.classifier.labels

    @property
    def detector(self) -> FaceDetector:
        with self._lock:
            if self._detector is None:
                self._detector = MTCNNDetector()
            return self._detector

    @cached_property
    def attention_names(self) -> tuple[str, ...]:
        """What ``attend`` gives for this model: Grad-CAM and the gates by name; empty where it can give nothing."""
        network = getattr(self.classifier, "network", None)
        if network is None or cam_layer(network) is None:
            return ()
        return (GRAD_CAM, *network.attention_names)

    def find_faces(self, image: Image.Image) -> Detection:
        """The faces of an upright RGB image, largest first."""
        return self.detector.detect(image)

    def align(self, image: Image.Image, face: Face) -> AlignedFace:
        """The face cropped as the model was trained to see it."""
        framing = self.classifier
        return align_face(
            image, face, template=framing.face_template, size_px=framing.size_px, margin=framing.face_margin
        )

    def take_as_crop(self, image: Image.Image) -> AlignedFace:
        """The whole picture as a face crop; another shape than a square is squeezed, as in training."""
        size_px = self.classifier.size_px
        affine = np.array([[size_px / image.width, 0, 0], [0, size_px / image.height, 0]])
        crop = image.resize((size_px, size_px), Image.Resampling.BILINEAR) if image.size != (size_px,) * 2 else image
        return AlignedFace(crop, affine)

    def classify(self, crops: Sequence[Image.Image], *, tta: bool = False) -> np.ndarray:
        """Probabilities (N, K) float32 of N crops; with ``tta`` the mean over each crop and its mirror image."""
        views = [*crops, *(ImageOps.mirror(crop) for crop in crops)] if tta else list(crops)
        if not views:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        starts = range(0, len(views), MAX_CROPS_AT_ONCE)
        scores = np.concatenate(
            [self.classifier.probabilities(views[start : start + MAX_CROPS_AT_ONCE]) for start in starts]
        )
        return scores.reshape(-1, len(crops), len(self.labels)).mean(axis=0)

    def attend(
        self, crops: Sequence[Image.Image], target: str | int | Sequence[int] | None = None
    ) -> list[dict[str, np.ndarray]]:
        """What the model looked at, one dict a crop, by the names in ``attention_names``.

        Grad-CAM for ``target`` (a class name or index, one index for each crop, or None for the most probable class)
        and spatial maps come as (size_px, size_px) in crop space, channel gates as (C,), all float32 in [0, 1]. Raises
        ValueError where the model offers none.
        """
        if getattr(self.classifier, "network", None) is None:
            raise ValueError("attention is read inside the network, which only backend='torch' allows; use that")
        if not self.attention_names:
            raise ValueError("this model names no layer for Grad-CAM (cam_layer) and has no attention to show")
        if isinstance(target, str):
            target = self._class_index(target)
        found: list[dict[str, np.ndarray]] = []
        for start in range(0, len(crops), MAX_CROPS_AT_ONCE):
            part = slice(start, start + MAX_CROPS_AT_ONCE)
            found += self._attend_part(crops[part], target[part] if np.ndim(target) else target)
        return found

    def _attend_part(self, crops: Sequence[Image.Image], target: int | Sequence[int] | None) -> list[dict]:
        network = self.classifier.network
        pixel_values = self.classifier.pixel_values(crops)
        maps = {GRAD_CAM: grad_cam(network, pixel_values, target), **attention_maps(network, pixel_values)}
        size_px = pixel_values.shape[-1]
        for name, values in maps.items():
            if values.ndim == 3:
                maps[name] = place(values, self._grid_of(name, values.shape[-1]), size_px)
        arrays = {name: values.float().cpu().numpy() for name, values in maps.items()}
        return [{name: values[index] for name, values in arrays.items()} for index in range(len(crops))]

    @cached_property
    def _grid_of(self) -> Callable[[str, int], CellGrid]:
        """Where the cells of the network's maps lie in the crop, by the map's name and its cells a side."""
        blank = Image.new("RGB", (self.classifier.size_px,) * 2)
        return map_grids(shared_copy(self.classifier.network), self.classifier.pixel_values([blank]))

    @property
    def answer_threshold(self) -> float | None:
        """The probability from which a class belongs to ``answer``; None where the model states none."""
        return getattr(self.classifier, "answer_threshold", None)

    @property
    def answer_coverage(self) -> float | None:
        """How often ``answer`` holds the label, on pictures like those it was fitted on; None where nobody knows."""
        return getattr(self.classifier, "answer_coverage", None)

    def answer(self, prediction: Prediction) -> tuple[str, ...]:
        """The classes an honest answer names, most probable first: ``("fear", "surprise")`` where it may be either.

        The most probable one, and each whose probability reaches the ``conformal_threshold`` in the model's config:
        on pictures like those it was fitted on, such answers hold the label ``conformal_coverage`` of the time. Raises
        ValueError where the model states no threshold, and for the mean over views, for which it was not fitted.
        """
        threshold = prediction.answer_threshold
        if threshold is None and self.answer_threshold is not None:
            raise ValueError("the conformal_threshold was fitted on one view; ask for the answer without tta")
        if threshold is None:
            raise ValueError(
                "this model states no conformal_threshold; fit one with training/eval.py --fit-temperature, and export "
                "the model after that"
            )
        ranked = sorted(prediction.scores, key=prediction.scores.get, reverse=True)
        return (ranked[0], *(name for name in ranked[1:] if prediction.scores[name] >= threshold))

    def _class_index(self, label: str) -> int:
        if label not in self.labels:
            raise ValueError(f"this model has no class {label!r}; it has {', '.join(self.labels)}")
        return self.labels.index(label)

    def locate(self, image: Image.Image, faces: str = "detect") -> tuple[list[FoundFace], int]:
        """The faces of an upright RGB image with their crops, and how many more were left out.

        ``faces`` is "detect", or "crop" where the picture is one face already.
        """
        if faces not in FACE_SOURCES:
            raise ValueError(f"faces must be one of {', '.join(map(repr, FACE_SOURCES))}; {faces!r} was given")
        if faces == "crop":
            return [(None, self.take_as_crop(image))], 0
        detection = self.find_faces(image)
        return [(face, self.align(image, face)) for face in detection.faces], detection.skipped

    def predict(
        self, found: Sequence[FoundFace], *, tta: bool = False, attention: bool = False
    ) -> tuple[Prediction, ...]:
        """The expressions of faces that may come from many photos: all go through the network together."""
        crops = [aligned.crop for _, aligned in found]
        scores = self.classify(crops, tta=tta)
        maps = self.attend(crops) if attention and crops else [None] * len(crops)
        threshold = None if tta else self.answer_threshold  # it was fitted on one view
        return tuple(
            Prediction(dict(zip(self.labels, row.tolist(), strict=True)), face, aligned, looked_at, threshold)
            for (face, aligned), row, looked_at in zip(found, scores, maps, strict=True)
        )

    def recognize(
        self, source: Any, *, faces: str = "detect", tta: bool = False, attention: bool = False
    ) -> Recognition:
        """One photo, from whatever ``image_io.read_image`` takes, with its faces and their expressions.

        Raises ``image_io.ImageError`` where it cannot be read; a photo without a face has no predictions.
        """
        photo = read_image(source)
        found, skipped = self.locate(photo.image, faces)
        notes = photo.notes
        if skipped:
            notes += (f"{skipped} smaller faces were left out; {len(found)} are the most that are looked at.",)
        return Recognition(photo.image, self.predict(found, tta=tta, attention=attention), skipped, notes)


def as_dict(prediction: Prediction, top_k: int | None = None) -> dict[str, Any]:
    """One face as the pipeline and the command line give it.

    ``top_k`` keeps that many classes, most probable first; None keeps all in the model's order.
    """
    scores = prediction.scores
    if top_k is not None:
        scores = dict(sorted(scores.items(), key=lambda item: item[1], reverse=True)[:top_k])
    face = prediction.face
    box = None if face is None else dict(zip(BOX_KEYS, map(round, face.box_xyxy), strict=True))
    row = {
        "label": prediction.label,
        "score": prediction.score,
        "scores": scores,
        "box": box,
        "detection_score": None if face is None else face.score,
    }
    if prediction.attention is not None:
        row |= {"attention": prediction.attention, "photo_to_crop": prediction.aligned.photo_to_crop}
    return row
