"""A report: every figure of a model on a split, from its raw logits, with intervals. Reads and writes no files."""

from dataclasses import dataclass

import numpy as np

from fer_hf.data.ferplus import soft_labels
from fer_hf.data.loaders import ArraySplit
from fer_hf.metrics import (
    ECE_BINS,
    ReliabilityBins,
    accuracy,
    auc_one_vs_rest,
    class_scores,
    confusion_matrix,
    jensen_shannon,
    row_losses,
    top_label_reliability,
)
from training.calibration import (
    COVERAGE,
    FOLDS,
    conformal_sets,
    conformal_threshold,
    cross_fit,
    fit_member_weights,
    fit_temperature,
    mix,
    probabilities_at,
)
from training.intervals import LEVEL, RESAMPLES, SEED, Statistics, bootstrap, rounded

PER_CLASS = ("precision", "recall", "f1", "auc")
_NAMED_PAIRS = 5


@dataclass(frozen=True)
class Scored:
    """What a model said about a split.

    Shapes:
        member_logs: (N, V, M, K) of V views, the first of which is the plain picture: log-probabilities of an
            ensemble's M members, or the raw logits of a single model, for which M is 1.
        tta: (v,) the views that are averaged, or None.
        temperature, weights: as stored in the model's config; weights are (M,).
        fitted_here: which of ``temperature`` and ``member_weights`` were fitted on these rows. Where any was, figures
            are of temperatures (and weights) that were fitted on the other folds.
    """

    split: ArraySplit
    names: tuple[str, ...]
    member_logs: np.ndarray
    tta: np.ndarray | None
    temperature: float
    weights: np.ndarray
    fitted_here: tuple[str, ...] = ()

    @property
    def targets(self) -> np.ndarray:
        return self.split.labels.cpu().numpy()

    def stored_logits(self, averaged: bool = False) -> np.ndarray:
        """Logits of the stored model before temperature: (N, v, K) of averaged views, (N, 1, K) of the plain one."""
        return mix(self.member_logs[:, self._views(averaged)], self.weights)

    def logits(self, averaged: bool) -> np.ndarray:
        """The same, with member weights of the other folds where these rows gave the stored ones."""
        if "member_weights" not in self.fitted_here:
            return self.stored_logits(averaged)
        views = self._views(averaged)
        return cross_fit(self.member_logs, self.targets, self._fit_weights, lambda logs, w: mix(logs[:, views], w))

    def probabilities(self, averaged: bool = False) -> np.ndarray:
        """What is reported, (N, K): for the plain picture, or the mean over its views.

        The stored model's answers, or cross-fitted ones where something in it was fitted on these rows; like the
        stored, their temperatures are those of the plain picture.
        """
        if not self.fitted_here:
            return probabilities_at(self.stored_logits(averaged), self.temperature)
        return self.cross_fitted(averaged, fitted_on_average=False)

    def cross_fitted(self, averaged: bool, fitted_on_average: bool) -> np.ndarray:
        """Probabilities (N, K) at temperatures of the other folds, and their member weights if fitted here."""
        views, fitted_views = self._views(averaged), self._views(fitted_on_average)

        def fit(logs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
            weights = self._fit_weights(logs, targets) if "member_weights" in self.fitted_here else self.weights
            return weights, fit_temperature(mix(logs[:, fitted_views], weights), targets)

        def apply(logs: np.ndarray, fitted: tuple[np.ndarray, float]) -> np.ndarray:
            weights, temperature = fitted
            return probabilities_at(mix(logs[:, views], weights), temperature)

        return cross_fit(self.member_logs, self.targets, fit, apply)

    def _views(self, averaged: bool) -> np.ndarray:
        return self.tta if averaged else np.zeros(1, dtype=int)

    @staticmethod
    def _fit_weights(logs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return fit_member_weights(logs[:, 0], targets)


def build_report(scored: Scored, *, resamples: int = RESAMPLES, seed: int = SEED) -> dict:
    """All figures of a model on a split, as docs/evaluation.md lists them.

    ``per_class``, ``confusion`` and ``conformal`` are of the plain picture; ``metrics_tta`` is None without views.
    """
    targets, names, probabilities = scored.targets, scored.names, scored.probabilities()
    figures = bootstrap(_statistics(scored, probabilities), len(targets), resamples, seed)
    confusion = confusion_matrix(targets, probabilities.argmax(axis=1), len(names))
    averaged = None
    if scored.tta is not None:
        averaged = bootstrap(_statistics(scored, scored.probabilities(True)), len(targets), resamples, seed)
    return {
        "cross_fitted": list(scored.fitted_here),
        "metrics": _overall(figures),
        "metrics_tta": None if averaged is None else _overall(averaged),
        "per_class": [
            {"label": name, "n": int(n)} | {figure: figures[f"class_{figure}"][k] for figure in PER_CLASS}
            for k, (name, n) in enumerate(zip(names, confusion.sum(axis=1), strict=True))
        ],
        "confusion": confusion.tolist(),
        "most_confused": most_confused(confusion, names),
        "calibration": {
            "bins": ECE_BINS,
            "folds": FOLDS,
            "single": _calibration(scored, averaged=False),
            "tta": None if scored.tta is None else _calibration(scored, averaged=True),
        },
        "conformal": _conformal(scored, probabilities),
        "intervals": {"level": LEVEL, "kind": "bootstrap percentile", "resamples": resamples, "seed": seed},
    }


def _overall(figures: dict[str, dict]) -> dict[str, dict]:
    return {name: figure for name, figure in figures.items() if not name.startswith("class_")}


def _statistics(scored: Scored, probabilities: np.ndarray) -> Statistics:
    targets, classes = scored.targets, len(scored.names)
    predictions = probabilities.argmax(axis=1)
    cells = confusion_cells(targets, predictions, classes)
    row_figures = {"loss": row_losses(probabilities, targets)}
    correct, distinct = (predictions == targets).astype(np.float64), first_copies(scored.split.pixel_sha256)
    shares, rated = _raters(scored)

    def of_draws(weights: np.ndarray) -> dict[str, np.ndarray]:
        confusion = (weights @ cells).reshape(-1, classes, classes)
        scores = class_scores(confusion)
        areas = auc_one_vs_rest(targets, probabilities, weights)
        figures = {"accuracy": accuracy(confusion)}
        for how in ("macro", "weighted"):
            figures |= {f"{how}_{name}": scores.average(name, how) for name in ("f1", "precision", "recall")}
        figures["auc"] = _mean_of_known(areas)
        figures |= {name: _weighted_mean(values, weights) for name, values in row_figures.items()}
        figures["accuracy_distinct"] = _weighted_mean(correct, weights * distinct)
        if shares is not None:
            divergence = jensen_shannon(probabilities, shares)
            figures["js_divergence"] = _weighted_mean(divergence, weights * rated)
        occurs = {"recall": scores.support}  # what has no rows, in a draw or at all, has no recall
        for name in ("precision", "recall", "f1"):
            cases = occurs.get(name, scores.support + scores.predicted)
            figures[f"class_{name}"] = np.where(cases > 0, getattr(scores, name), np.nan)
        return figures | {"class_auc": areas}

    return of_draws


def confusion_cells(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """(N, K²) float32 with a 1 where a row falls in the confusion matrix: weights (R, N) times it are R matrices."""
    cells = np.zeros((len(targets), classes**2), dtype=np.float32)
    cells[np.arange(len(targets)), targets * classes + predictions] = 1
    return cells


def _raters(scored: Scored) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Vote shares (N, K) and which rows have any, or (None, None) where the data has no votes for these classes."""
    if scored.split.votes is None:
        return None, None
    return soft_labels(scored.split.votes, scored.names)


def _mean_of_known(areas: np.ndarray) -> np.ndarray:
    known = ~np.isnan(areas)
    total = np.where(known, areas, 0).sum(axis=-1)
    return np.divide(total, known.sum(axis=-1), out=np.full(len(areas), np.nan), where=known.any(axis=-1))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, dtype=np.float64)
    return np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)


def first_copies(pixel_sha256: tuple[str, ...]) -> np.ndarray:
    """(N,) bool: whether a row is the first with its picture, so that copies count once."""
    _, first = np.unique(np.array(pixel_sha256), return_index=True)
    return np.isin(np.arange(len(pixel_sha256)), first)


def most_confused(confusion: np.ndarray, names: tuple[str, ...], count: int = _NAMED_PAIRS) -> list[dict]:
    """The most frequent mistakes, each with its number of rows and its share of the true class."""
    mistakes = confusion - np.diag(np.diagonal(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = [(int(cell) // len(names), int(cell) % len(names)) for cell in order]
    return [
        {
            "true": names[true],
            "predicted": names[predicted],
            "n": int(mistakes[true, predicted]),
            "share": rounded(mistakes[true, predicted] / confusion[true].sum()),
        }
        for true, predicted in pairs
        if mistakes[true, predicted]
    ]


def _calibration(scored: Scored, averaged: bool) -> dict:
    """ECE at temperature 1, as stored, fitted on these rows, and cross-fitted: the one to report."""
    logits, targets = scored.logits(averaged), scored.targets
    fitted = fit_temperature(logits, targets)
    bins = {
        "at_1": top_label_reliability(probabilities_at(logits), targets),
        "stored": top_label_reliability(probabilities_at(logits, scored.temperature), targets),
        "fitted": top_label_reliability(probabilities_at(logits, fitted), targets),
        "cross_fitted": top_label_reliability(scored.cross_fitted(averaged, fitted_on_average=averaged), targets),
    }
    return {
        "temperature_stored": rounded(scored.temperature),
        "temperature_fitted": rounded(fitted),
        "ece": {name: rounded(value.error) for name, value in bins.items()},
        "reliability": {name: _bin_lists(bins[name]) for name in ("at_1", "cross_fitted")},
    }


def _bin_lists(bins: ReliabilityBins) -> dict[str, list]:
    return {
        "confidence": [rounded(value) for value in bins.confidence],
        "accuracy": [rounded(value) for value in bins.accuracy],
        "n": bins.count.tolist(),
    }


def _conformal(scored: Scored, probabilities: np.ndarray) -> dict:
    """How answers of one or more classes would do, with a threshold that is cross-fitted on these rows."""
    targets, stored = scored.targets, probabilities_at(scored.stored_logits(), scored.temperature)
    sets = cross_fit(probabilities, targets, conformal_threshold, conformal_sets)
    sizes = sets.sum(axis=1)
    return {
        "coverage_asked": COVERAGE,
        "coverage": rounded(sets[np.arange(len(targets)), targets].mean()),
        "mean_size": rounded(sizes.mean()),
        "share_of_one_class": rounded((sizes == 1).mean()),
        "threshold": rounded(conformal_threshold(stored, targets)),
    }
