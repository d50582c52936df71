"""A saved model on a split: loading both and running one over the other."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from fer_hf.data.loaders import ArraySplit
from fer_hf.data.sources import load_source
from fer_hf.download import download_model
from fer_hf.hub import load_model
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_fer import FerPreTrainedModel
from training.report import Scored
from training.views import View, parse_views, predict_views

LABELS = ("fer2013", "ferplus-majority", "dataset")
"""Labels that say one class for each row, so that a row can be right or wrong."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to be scored, and the folder its files lie in."""

    name: str
    model: FerPreTrainedModel
    processor: FerImageProcessor
    folder: Path
    weights_sha256: str  # of the files the model was read from

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.model.config.id2label[index] for index in range(len(self.model.config.id2label)))


def load(name_or_path: str, device: str) -> Loaded:
    """A model and its processor from a folder or the Hub. Raises ValueError where it is no model of this package."""
    loaded = load_model(name_or_path)
    if not isinstance(loaded.model, FerPreTrainedModel) or not isinstance(loaded.processor, FerImageProcessor):
        raise ValueError(f"{name_or_path} is a {loaded.model.config.model_type}; only models of fer_hf are scored")
    if Path(name_or_path).is_dir():
        name, folder = Path(name_or_path).resolve().name, Path(name_or_path)
    else:
        name = name_or_path.partition("@")[0]
        folder, _ = download_model(name, loaded.revision)
    return Loaded(name, loaded.model.to(device), loaded.processor, folder, hash_weights(folder))


def hash_weights(folder: Path) -> str:
    """SHA-256 of the weight files of a model folder, by which records say what they are of."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def load_split(data: str, split: str, votes: str | None, classes: int) -> datasets.Dataset:
    """One split of a data set, as ``fer_hf.data.sources`` reads it.

    Raises ValueError that names the splits there are.
    """
    splits = load_source(data, votes=votes, classes=classes)
    if split not in splits:
        raise ValueError(f"{data} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split]


def score(loaded: Loaded, split: ArraySplit, tta: str | None, batch_size: int) -> Scored:
    """The model's raw logits for the plain pictures and the views of ``tta``; equal views are computed once."""
    wanted = parse_views(tta) if tta else ()
    views = tuple(dict.fromkeys((View(), *wanted)))
    logits = predict_views(
        loaded.model, split.images, loaded.processor.normalize_uint8, views, batch_size=batch_size
    ).numpy()
    averaged = np.array([views.index(view) for view in wanted]) if tta else None
    return Scored(split, loaded.class_names, logits, averaged, loaded.model.config.temperature)
