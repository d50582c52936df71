"""Scores of a classifier: numpy functions, and ``evaluate.Metric`` classes around them that need no network.

Everything that a confusion matrix determines works on a stack of matrices (..., K, K) at once, and the AUC takes a
weight for each row, so that thousands of bootstrap resamples cost a few array operations.
"""

from dataclasses import dataclass

import datasets
import evaluate
import numpy as np

ECE_BINS = 15


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (..., K) from logits (..., K), in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def row_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row in nats, (N,), against class indices (N,) or distributions (N, K)."""
    log = np.log(np.clip(probabilities, 1e-12, 1))
    targets = np.asarray(targets)
    return -(targets * log).sum(axis=1) if targets.ndim == 2 else -log[np.arange(len(targets)), targets]


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Divergence in bits, (N,), in [0, 1], between rows of two distributions (N, K): 0 where they are equal.

    Source: Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37 (1991).
    """
    middle = (p + q) / 2

    def relative_entropy(a: np.ndarray) -> np.ndarray:
        ratio = np.divide(a, middle, out=np.ones_like(middle), where=a > 0)
        return (a * np.log2(ratio)).sum(axis=-1)

    return np.clip((relative_entropy(p) + relative_entropy(q)) / 2, 0, 1)


def confusion_matrix(targets: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (K, K): row the true class, column the predicted one.

    Raises ValueError for no rows, for unequal lengths and for indices outside 0 to K - 1.
    """
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    if len(targets) == 0 or targets.shape != predictions.shape:
        raise ValueError(
            f"{len(predictions)} predictions and {len(targets)} targets were given; give as many of one as of the "
            "other, and at least one"
        )
    lowest, highest = min(targets.min(), predictions.min()), max(targets.max(), predictions.max())
    if lowest < 0 or highest >= num_classes:
        raise ValueError(f"class indices span {lowest} to {highest}; {num_classes} classes have 0 to {num_classes - 1}")
    cells = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, every field (..., K); a ratio without cases is 0, as in scikit-learn."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    def average(self, name: str, how: str) -> np.ndarray:
        """One score for each matrix, (...,): ``macro`` over the classes that occur or are predicted, or ``weighted``
        by how often they occur."""
        if how not in ("macro", "weighted"):
            raise ValueError(f"average {how!r} is unknown; choose macro or weighted")
        weights = self.support if how == "weighted" else self.support + self.predicted > 0
        return (getattr(self, name) * weights).sum(axis=-1) / weights.sum(axis=-1)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Precision, recall, F1 and counts of each class from one confusion matrix (K, K) or a stack (..., K, K)."""
    confusion = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return ClassScores(
        precision=hits / np.maximum(predicted, 1),
        recall=hits / np.maximum(support, 1),
        f1=2 * hits / np.maximum(support + predicted, 1),
        support=support,
        predicted=predicted,
    )


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of rows on the diagonal, (...,), from confusion matrices (..., K, K)."""
    return np.trace(confusion, axis1=-2, axis2=-1) / np.sum(confusion, axis=(-2, -1))


def auc_one_vs_rest(targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve of each class against the others, ties counted half: (K,), or (R, K) with weights.

    NaN for a class that has no row, or nothing but its rows. Take ``np.nanmean`` over the last axis for the macro
    figure.

    Args:
        targets: (N,) class indices.
        probabilities: (N, K) scores; only their order within a class matters.
        weights: (R, N) non-negative, such as how often each of R resamples holds each row.
    """
    counts = np.ones((1, len(targets))) if weights is None else np.asarray(weights, dtype=np.float64)
    areas = np.full((len(counts), probabilities.shape[1]), np.nan)
    for k in range(probabilities.shape[1]):
        order = np.argsort(probabilities[:, k], kind="stable")
        scores, positive = probabilities[order, k], (np.asarray(targets)[order] == k)
        starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))  # of runs of equal scores
        sorted_counts = counts[:, order]
        positives = np.add.reduceat(sorted_counts * positive, starts, axis=1)
        negatives = np.add.reduceat(sorted_counts * ~positive, starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        np.divide((positives * below).sum(axis=1), pairs, out=areas[:, k], where=pairs > 0)
    return areas[0] if weights is None else areas


@dataclass(frozen=True)
class ReliabilityBins:
    """Mean confidence, share correct and number of rows of each bin, by rising confidence, each (bins,)."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: mean |confidence - accuracy| over rows (Naeini et al., AAAI 2015)."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.count))


def reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = ECE_BINS) -> ReliabilityBins:
    """Bins of equal mass over confidence (N,) in [0, 1]; fewer than ``bins`` where ties or few rows merge them.

    Equal confidences share a bin, so the order of rows has no influence.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if len(confidence) == 0 or len(confidence) != len(correct):
        raise ValueError(f"{len(confidence)} confidences and {len(correct)} outcomes were given; give one for each row")
    lowest = np.unique(np.sort(confidence)[np.arange(bins) * len(confidence) // bins])
    index = np.searchsorted(lowest, confidence, side="right") - 1
    count = np.bincount(index)
    return ReliabilityBins(
        np.bincount(index, weights=confidence) / count, np.bincount(index, weights=correct) / count, count
    )


def top_label_reliability(probabilities: np.ndarray, targets: np.ndarray, bins: int = ECE_BINS) -> ReliabilityBins:
    """Bins over the probability of the most likely class, from probabilities (N, K) and class indices (N,)."""
    return reliability_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(targets), bins)


_CLASSES = {"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}
_PROBABILITIES = {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int32")}


class _OfflineMetric(evaluate.Metric):
    """Base: keeps what is added in memory, so that neither network nor cache folder is needed."""

    columns: dict
    summary: str

    def __init__(self, keep_in_memory: bool = True, **kwargs):
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.summary,
            citation="",
            inputs_description="predictions and references, one for each row",
            features=datasets.Features(self.columns),
        )


class Accuracy(_OfflineMetric):
    """``{"accuracy"}`` of predicted class indices."""

    columns, summary = _CLASSES, "Share of rows whose predicted class is the reference."

    def _compute(self, predictions, references) -> dict[str, float]:
        return {"accuracy": float(accuracy(_confusion(predictions, references)))}


class F1(_OfflineMetric):
    """``{"f1_macro", "f1_weighted"}`` of predicted class indices."""

    columns, summary = _CLASSES, "F1, averaged over classes alike and by support."

    def _compute(self, predictions, references) -> dict[str, float]:
        scores = class_scores(_confusion(predictions, references))
        return {f"f1_{how}": float(scores.average("f1", how)) for how in ("macro", "weighted")}


class AUC(_OfflineMetric):
    """``{"auc"}`` of predicted probabilities: one class against the rest, mean over the classes that occur."""

    columns, summary = _PROBABILITIES, "Area under the ROC curve, one against the rest, macro."

    def _compute(self, predictions, references) -> dict[str, float]:
        return {"auc": float(np.nanmean(auc_one_vs_rest(np.array(references), np.array(predictions))))}


class ExpectedCalibrationError(_OfflineMetric):
    """``{"ece"}`` of predicted probabilities, over bins of equal mass."""

    columns, summary = _PROBABILITIES, f"Expected calibration error over {ECE_BINS} bins of equal mass."

    def _compute(self, predictions, references, bins: int = ECE_BINS) -> dict[str, float]:
        return {"ece": top_label_reliability(np.array(predictions), np.array(references), bins).error}


def _confusion(predictions, references) -> np.ndarray:
    predictions, references = np.array(predictions), np.array(references)
    if len(predictions) == 0:
        raise ValueError("no predictions were added; add at least one before compute()")
    return confusion_matrix(references, predictions, int(max(predictions.max(), references.max())) + 1)
