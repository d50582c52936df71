"""Labels that are probably wrong: rows whose own label a model finds least likely, judged out of fold.

A trained model's log-probabilities are the features of a small classifier that learns this data set's labels on four
fifths of the rows and judges the rest (confident learning's self-confidence; Northcutt et al., arXiv 1911.00068). So a
model of another vocabulary, or trained on other labels, serves as well: what counts is what this data set calls such
faces. Where the model was trained on the very rows, it has seen their labels, and errors it has learned are missed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from datasets.utils import tqdm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
INVERSE_STRENGTH = 0.1  # C of the logistic regression
_BATCH_ROWS = 128


@dataclass(frozen=True)
class LabelDoubts:
    """How likely (N, K) each class is for each row, out of fold; rows of classes too small to judge are all NaN."""

    probabilities: np.ndarray
    labels: np.ndarray

    def own(self) -> np.ndarray:
        """Probability (N,) of each row's own label; NaN where it was not judged."""
        return self.probabilities[np.arange(len(self.labels)), self.labels]

    def ranking(self) -> np.ndarray:
        """The rows that were judged, the most doubtful label first."""
        own = self.own()
        order = np.argsort(own, kind="stable")
        return order[~np.isnan(own[order])]


def label_doubts(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> LabelDoubts:
    """Out-of-fold class probabilities of rows with ``features`` (N, D), e.g. a model's log-probabilities.

    Classes of fewer than five rows cannot be judged.
    """
    labels = np.asarray(labels, dtype=np.int64)
    probabilities = np.full((len(labels), num_classes), np.nan)
    rows = np.flatnonzero(np.bincount(labels, minlength=num_classes)[labels] >= FOLDS)
    if len(np.unique(labels[rows])) > 1:
        probabilities[rows] = 0
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        for train, held_out in folds.split(rows, labels[rows]):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_STRENGTH, max_iter=1000))
            model.fit(features[rows[train]], labels[rows[train]])
            judged = rows[held_out]
            probabilities[judged[:, None], model.classes_[None]] = model.predict_proba(features[judged])
    return LabelDoubts(probabilities, labels)


def log_probabilities(source: datasets.DatasetDict, model: torch.nn.Module, processor) -> np.ndarray:
    """The model's log-probabilities (N, K) for every picture of every split, taken as face crops."""
    found = []
    with (
        torch.inference_mode(),
        tqdm(total=sum(map(len, source.values())), unit=" pictures", desc="Judging") as progress,
    ):
        for split in source.values():
            for images in _batches(split):
                inputs = processor(images=images, return_tensors="pt").to(model.device, model.dtype)
                found.append(model(**inputs).logits.float().log_softmax(1).cpu().numpy())
                progress.update(len(images))
    return np.concatenate(found)


def _batches(split: datasets.Dataset) -> Iterator[list]:
    for batch in split.select_columns("image").iter(_BATCH_ROWS):
        yield [image.convert("RGB") for image in batch["image"]]
