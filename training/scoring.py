"""A saved model on a split: loading both, running one over the other, and what records say of the two."""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch

from fer_hf.data.loaders import ArraySplit, load_arrays
from fer_hf.data.sources import load_source
from fer_hf.download import download_model
from fer_hf.hub import load_model
from fer_hf.model_folder import weight_files
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification
from fer_hf.models.modeling_fer import FerPreTrainedModel
from training.intervals import RESAMPLES, SEED
from training.provenance import row_ids_sha256
from training.report import Scored
from training.views import View, parse_views, predict_views

LABELS = ("fer2013", "ferplus-majority", "dataset")
"""Labels that say one class for each row, so that a row can be right or wrong."""


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command what says which rows are scored, by which labels, and how intervals are drawn."""
    parser.add_argument("--data", required=True, help="folder of parquet, fer2013.csv, class folders or a Hub id")
    parser.add_argument("--votes", help="fer2013new.csv, where the data carries no FER+ votes")
    parser.add_argument("--split", default="validation", help="train, validation or test (default: %(default)s)")
    parser.add_argument("--labels", default="fer2013", choices=LABELS, help="what is right (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


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
    """SHA-256 of the files that a model's weights are read from, by which records say what they are of."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
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


def open_split(loaded: Loaded, arguments: argparse.Namespace) -> tuple[ArraySplit, int]:
    """The split that the arguments name, as the model takes it, and how many rows were left out for lack of a label."""
    source = load_split(arguments.data, arguments.split, arguments.votes, len(loaded.class_names))
    split = load_arrays(source, loaded.processor, labels=arguments.labels, names=loaded.class_names)
    return split, len(source) - len(split)


def record_head(loaded: Loaded, split: ArraySplit, arguments: argparse.Namespace) -> dict:
    """What every record begins with: which model was scored on which rows."""
    return {
        "model": loaded.name,
        "split": arguments.split,
        "labels": arguments.labels,
        "n": len(split),
        "data_sha256": split.sha256(),
        "row_ids_sha256": row_ids_sha256(split.row_ids),
        "weights_sha256": loaded.weights_sha256,
    }


def score(
    loaded: Loaded, split: ArraySplit, tta: str | None, batch_size: int, fitted_here: tuple[str, ...] = ()
) -> Scored:
    """What the model says of the plain pictures and of the views of ``tta``; equal views are computed once.

    ``fitted_here`` names what was fitted on these rows, and is cross-fitted.
    """
    wanted = parse_views(tta) if tta else ()
    views = tuple(dict.fromkeys((View(), *wanted)))
    model = loaded.model
    is_ensemble = isinstance(model, FerEnsembleForImageClassification)
    answer = model.member_log_probabilities if is_ensemble else lambda pixels: model(pixels).raw_logits[:, None]
    normalize = loaded.processor.normalize_uint8
    logs = predict_views(model, split.images, normalize, views, batch_size=batch_size, answer=answer).numpy()
    return Scored(
        split,
        loaded.class_names,
        logs,
        np.array([views.index(view) for view in wanted]) if tta else None,
        model.config.temperature,
        np.array(model.config.weights) if is_ensemble else np.ones(1),
        fitted_here,
    )
