"""An ensemble against its members, on the rows of one report."""

import numpy as np

from training.calibration import probabilities_at
from training.compare import COMPARED, compare
from training.report import Scored


def against_members(scored: Scored, names: tuple[str, ...], resamples: int, seed: int) -> dict:
    """Every member's figures and the ensemble against the best one, on one view (``single``) and averaged (``tta``).

    ``weights`` are as stored; ``against_best`` holds differences with paired intervals. The best member is the one with
    the highest accuracy on these very rows, which favours it.
    """
    weights = dict(zip(_distinct(names), scored.weights.round(6).tolist(), strict=True))
    return {
        "weights": weights,
        "single": _compared(scored, tuple(weights), False, resamples, seed),
        "tta": None if scored.tta is None else _compared(scored, tuple(weights), True, resamples, seed),
    }


def _compared(scored: Scored, names: tuple[str, ...], averaged: bool, resamples: int, seed: int) -> dict:
    views = scored.tta if averaged else [0]
    answers = {name: probabilities_at(scored.member_logs[:, views, index]) for index, name in enumerate(names)}
    answers["ensemble"] = scored.probabilities(averaged)
    rows = {
        name: {"targets": scored.targets, "names": np.array(scored.names), "predictions": answer.argmax(axis=1)}
        for name, answer in answers.items()
    }
    best = max(names, key=lambda name: (rows[name]["predictions"] == scored.targets).mean())
    found = compare(rows, best, resamples, seed)
    return {
        "best": best,
        "figures": {name: {key: found[name][key] for key in COMPARED} for name in names},
        "against_best": found["ensemble"]["difference"],
    }


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, numbered where two are alike or one is called as the ensemble."""
    if len({*names, "ensemble"}) > len(names):
        return names
    return tuple(f"{name} ({index})" for index, name in enumerate(names, 1))
