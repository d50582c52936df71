"""The transformers pipeline task ``facial-expression-recognition``."""

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from types import EllipsisType, SimpleNamespace
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForImageClassification, Pipeline, PreTrainedConfig, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .detection import FaceDetector
from .faces import Prediction
from .hub import default_model_path, load_model, save_portable
from .image_io import read_image
from .recognition import ExpressionRecognizer, FoundFace, as_dict
from .registry import TASK


class FacialExpressionPipeline(Pipeline):
    """Photos to faces with their perceived expressions.

    Call it with one photo or with a list, a ``datasets`` column, a torch dataset or a generator of photos; a photo is
    anything that ``image_io.read_image`` takes. The answer for one photo is a list with a dict for each face, largest
    first, empty where there is no face; many photos give such a list each, in their order. Faces of all photos of a
    batch go through the model together.

    Parameters, here or at each call:
        faces: "detect" finds the faces; "crop" takes each picture as one face already (its box is None).
        tta: average over the crop and its mirror image.
        attention: add ``attention`` (Grad-CAM and gates by name) and ``photo_to_crop``, for ``warp_to_photo``.
        answer: add ``answer``, every class that may be it (``["fear", "surprise"]``), and ``coverage``: how often such
            an answer holds the label on pictures like those it was fitted on. For models whose config states both, and
            one view of each face, so not with ``tta``.
        top_k: keep that many classes in ``scores``, most probable first; None keeps all in the model's order.
        batch_size: photos that are read before the model runs.
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_video_processor = False

    def __init__(
        self,
        *args,
        detector: FaceDetector | None = None,
        recognizer: ExpressionRecognizer | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.recognizer = recognizer or ExpressionRecognizer.from_model(self.model, self.image_processor, detector)

    def __call__(self, inputs: Any, **kwargs: Any) -> list | Iterator[list[dict]]:
        if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes | bytearray | memoryview):
            return list(super().__call__(_Rows(inputs), **kwargs))
        if isinstance(inputs, Iterable) and not (isinstance(inputs, Sized) or hasattr(inputs, "read")):
            inputs = (source for source in inputs)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        faces: str | None = None,
        tta: bool | None = None,
        attention: bool | None = None,
        answer: bool | None = None,
        top_k: int | EllipsisType | None = ...,  # not given; None undoes what was set before
    ) -> tuple[dict, dict, dict]:
        if top_k is not ... and top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None for all classes; {top_k} was given")
        forward = {"tta": tta, "attention": attention, "answer": answer}
        steps = ({"faces": faces}, forward, {"answer": answer})
        preprocess, forward, postprocess = (
            {name: value for name, value in step.items() if value is not None} for step in steps
        )
        return preprocess, forward, postprocess | ({} if top_k is ... else {"top_k": top_k})

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[list[dict]]:
        rows_class = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        photos = rows_class(inputs, self.preprocess, preprocess_params)
        # Each worker would go through the whole of a generator, and every photo be answered as often.
        num_workers = num_workers if isinstance(inputs, Sized) else min(num_workers, 1)
        for batch in DataLoader(photos, num_workers=num_workers, batch_size=batch_size, collate_fn=list):
            for predictions in self.forward(batch, **forward_params):
                yield self.postprocess(predictions, **postprocess_params)

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params) -> list[dict]:
        (predictions,) = self.forward([self.preprocess(inputs, **preprocess_params)], **forward_params)
        return self.postprocess(predictions, **postprocess_params)

    def preprocess(self, source: Any, faces: str = "detect") -> list[FoundFace]:
        if isinstance(source, dict) and source.keys() == {"bytes", "path"}:  # a row of datasets.Image(decode=False)
            source = source["path"] if source["bytes"] is None else source["bytes"]
        found, _ = self.recognizer.locate(read_image(source).image, faces)
        return found

    def _forward(
        self, batch: list[list[FoundFace]], tta: bool = False, attention: bool = False, answer: bool = False
    ) -> list[tuple[Prediction, ...]]:
        if answer and tta:
            raise ValueError("the coverage of an answer was measured on one view of each face: leave out answer or tta")
        together = [found for photo in batch for found in photo]
        predictions = iter(self.recognizer.predict(together, tta=tta, attention=attention))
        return [tuple(next(predictions) for _ in photo) for photo in batch]

    def postprocess(
        self, predictions: tuple[Prediction, ...], answer: bool = False, top_k: int | None = None
    ) -> list[dict]:
        rows = [as_dict(prediction, top_k) for prediction in predictions]
        if answer:
            for row, prediction in zip(rows, predictions, strict=True):
                row |= {
                    "answer": list(self.recognizer.answer(prediction)),
                    "coverage": self.recognizer.answer_coverage,
                }
        return rows

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        push_to_hub: bool = False,
        max_shard_size: int | str | None = None,
        **hub_options: Any,
    ) -> None:
        """Saves the model and its image processor as ``hub.save_portable`` does; the detector is not part of it.

        ``push_to_hub=True`` then calls the method ``push_to_hub`` with the other options; its ``repo_id`` is by default
        the folder's name. ``max_shard_size`` is taken because that method gives it, and changes nothing: the weights
        are one float16 file. Raises ValueError for options without effect, and for a pipeline on onnxruntime.
        """
        if not isinstance(self.model, PreTrainedModel):
            raise ValueError(
                "this pipeline has no weights to save; copy its .onnx file, or make it with backend='torch'"
            )
        if hub_options and not push_to_hub:
            raise ValueError(f"without push_to_hub=True, {', '.join(hub_options)} would have no effect; leave that out")
        folder = save_portable(self.model, self.image_processor, save_directory)
        if push_to_hub:
            self.push_to_hub(hub_options.pop("repo_id", folder.name), **hub_options)


class _Rows(Dataset):
    """A sequence as a torch dataset, so that its rows are read batch by batch."""

    def __init__(self, rows: Sequence):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return self.rows[index]


def pipeline(
    task: str = TASK,
    model: Any = None,
    *,
    revision: str | None = None,
    dtype: Any = "auto",
    trust_remote_code: bool = False,
    backend: str = "torch",
    **kwargs: Any,
) -> Pipeline:
    """A transformers pipeline for perceived expressions, with the embedded model unless another is named.

    ``model`` is a folder, a Hub id (``user/name@revision``) or a loaded model, whose ``image_processor`` must then be
    given too. ``backend="onnx"`` runs the model's exported file, or an .onnx file, with onnxruntime on the CPU.
    ``device``, ``batch_size`` and the parameters of ``FacialExpressionPipeline`` are passed on. Raises
    ``hub.ModelError`` with one sentence where the model cannot be loaded, and ValueError for what only loading with
    transformers knows. Other tasks go to ``transformers.pipeline``.
    """
    if dtype == "auto":
        dtype = kwargs.pop("torch_dtype", dtype)  # its name in transformers before version 5
    if backend != "torch":
        return _other_backend(task, model, revision=revision, dtype=dtype, backend=backend, **kwargs)
    passed_on = {"dtype": dtype, **kwargs}
    if task != TASK:
        return transformers.pipeline(task, model, revision=revision, trust_remote_code=trust_remote_code, **passed_on)
    if foreign := sorted({"device_map", "model_kwargs", "token"} & kwargs.keys()):
        raise ValueError(
            f"{foreign[0]} is not taken here: log in with `hf auth login` for what is private, and load the model "
            "yourself, to pass it with image_processor=, for everything else"
        )
    if model is None or isinstance(model, str | Path):
        name = default_model_path() if model is None else model
        loaded = load_model(name, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code)
        model, passed_on["image_processor"] = loaded.model, kwargs.get("image_processor") or loaded.processor
    elif kwargs.get("image_processor") is None:
        raise ValueError("a model that is given as an object needs its image processor: pass image_processor=")
    return transformers.pipeline(TASK, model, **passed_on)


def _other_backend(
    task: str,
    model: Any,
    *,
    detector: FaceDetector | None = None,
    device: Any = None,
    **kwargs: Any,
) -> Pipeline:
    if task != TASK or not (model is None or isinstance(model, str | Path)):
        raise ValueError(f"backend={kwargs['backend']!r} runs {TASK} with a model's folder, Hub id or .onnx file only")
    chosen = {key: kwargs.pop(key) for key in ("revision", "dtype", "backend")}
    name = default_model_path() if model is None else model
    device = "cpu" if device in (None, -1) else device
    recognizer = ExpressionRecognizer.from_pretrained(name, device=device, detector=detector, **chosen)
    # transformers asks a pipeline's model for its device and its config; the network itself is in the recognizer.
    stand_in = SimpleNamespace(
        device=torch.device("cpu"), config=PreTrainedConfig(id2label=dict(enumerate(recognizer.labels)))
    )
    return FacialExpressionPipeline(model=stand_in, task=TASK, device=-1, recognizer=recognizer, **kwargs)


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=FacialExpressionPipeline,
    pt_model=AutoModelForImageClassification,
    default={"model": (str(default_model_path()), None)},
    type="image",
)
