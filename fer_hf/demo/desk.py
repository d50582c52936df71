"""The demo's one way from a visitor's bytes to a result; every tab and endpoint goes through it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fer_hf.demo.markup import ResultView, map_views, result_html
from fer_hf.demo.records import photo_record, to_csv
from fer_hf.demo.uploads import Upload
from fer_hf.demo.wording import explain_doubt, summarise
from fer_hf.demo.zero_gpu import on_gpu
from fer_hf.faces import Prediction
from fer_hf.image_io import ImageError, read_image
from fer_hf.recognition import ExpressionRecognizer, Recognition

ATTENDED_FACES = 12
"""Faces whose attention comes with the first answer; that of further ones is computed when they are chosen."""


class Desk:
    """One recognizer for all visitors. Its methods raise ImageError, or Refused, with one sentence."""

    def __init__(self, recognizer: ExpressionRecognizer, model: str) -> None:
        self.recognizer = recognizer
        self.folder = Path(model) if Path(model).is_dir() else None
        # A folder's place on the server's disk is nobody's business; a Hub id is shown as it is.
        self.model_name = model if self.folder is None else self.folder.name
        self._recognize, self._classify = on_gpu(recognizer.recognize), on_gpu(recognizer.classify)
        self._attend = on_gpu(recognizer.attend)

    def count_parameters(self) -> int | None:
        """How many parameters the network has; None where it cannot be asked, as with a graph for another runtime."""
        network = getattr(getattr(self.recognizer, "classifier", None), "network", None)
        return None if network is None else sum(weights.numel() for weights in network.parameters())

    def kind(self) -> str:
        """What a visitor reads for the model's architecture."""
        network = getattr(getattr(self.recognizer, "classifier", None), "network", None)
        return "unknown" if network is None else str(network.config.model_type)

    def recognize(self, upload: Upload) -> Recognition:
        """The faces of an uploaded photo with their expressions."""
        if upload.fault:
            raise ImageError(upload.fault)
        return self._recognize(upload.data)

    def score(self, crops: Sequence[Image.Image]) -> list[dict[str, float]]:
        """Every class with its probability for each face crop."""
        labels = self.recognizer.labels
        return [dict(zip(labels, row, strict=True)) for row in self._classify(crops).tolist()]

    def attention_of(self, crops: Sequence[Image.Image], target: str | None = None) -> list[dict[str, np.ndarray]]:
        """What the model looked at in each crop, for an expression or for its own answer; empty where it cannot say."""
        if not crops or not self.recognizer.attention_names:
            return [{} for _ in crops]
        return self._attend(crops, target)

    def record(self, upload: Upload) -> dict:
        """An uploaded photo's result as plain data."""
        return self.record_of(upload.name, self.recognize(upload))

    def record_of(self, name: str, found: Recognition) -> dict:
        """A recognised photo as plain data."""
        return photo_record(name, found, self.model_name)

    def show(self, upload: Upload) -> str:
        """An uploaded photo's result as HTML, with attention for its largest faces."""
        found = self.recognize(upload)
        record = self.record_of(upload.name, found)
        count = len(found.predictions)
        view = ResultView(
            photo=found.photo,
            alt=f"{upload.name} with {count} {'face' if count == 1 else 'faces'} marked",
            predictions=self._with_attention(found.predictions),
            summary=summarise(found.predictions, found.photo.size),
            notes=[*found.notes, *filter(None, [explain_doubt(found.predictions, self.recognizer.answer_coverage)])],
            record=record,
            csv=to_csv([record]),
        )
        return result_html(view)

    def _with_attention(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        chosen = predictions[:ATTENDED_FACES]
        maps = self.attention_of([one.aligned.crop for one in chosen])
        attended = [replace(one, attention=attention) for one, attention in zip(chosen, maps, strict=True)]
        return [*attended, *predictions[ATTENDED_FACES:]]

    def attend(self, crop: Upload, target: str) -> list[dict[str, str]]:
        """Attention of one face crop for one expression, as pictures for the page."""
        image = read_image(crop.data).image
        return map_views(self.attention_of([image], target)[0])
