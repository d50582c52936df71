"""Temperature, cross-fitting and conformal sets: what turns logits into probabilities that can be believed."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

FOLDS = 5
COVERAGE = 0.9
_EM_STEPS, _EM_TOLERANCE = 5000, 1e-7
_LOG_TEMPERATURE_RANGE = (np.log(0.05), np.log(20.0))


def log_probabilities(raw_logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Log-probabilities (N, K) of raw logits (N, K), or of the mean probability of views (N, V, K)."""
    logs = log_softmax(np.asarray(raw_logits, dtype=np.float64) / temperature, axis=-1)
    return logs if logs.ndim == 2 else logsumexp(logs, axis=1) - np.log(logs.shape[1])


def probabilities_at(raw_logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (N, K) of raw logits (N, K), or the mean probability of views (N, V, K)."""
    return np.exp(log_probabilities(raw_logits, temperature))


def fit_temperature(raw_logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature in [0.05, 20] with the least cross-entropy.

    Args:
        raw_logits: (N, K), or (N, V, K) for the mean probability of V views; not yet divided by a temperature.
        targets: class indices (N,) or distributions (N, K).

    Source: Guo et al., arXiv 1706.04599. Raises ValueError for no rows or numbers that are not finite.
    """
    raw_logits, weights = _checked(raw_logits, targets)

    def loss(log_temperature: float) -> float:
        return -float((weights * log_probabilities(raw_logits, np.exp(log_temperature))).sum(axis=1).mean())

    # For one view the loss is convex in 1 / temperature, so it has one minimum along the logarithm as well.
    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURE_RANGE, method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def mix(member_logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log of the weighted mean probability (..., K) of members' log-probabilities (..., M, K)."""
    return logsumexp(np.asarray(member_logs, dtype=np.float64), axis=-2, b=np.asarray(weights)[:, None])


def fit_member_weights(member_logs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The weights (M,) of the mean, not negative and of sum 1, with the least cross-entropy.

    Args:
        member_logs: (N, M, K) log-probabilities of M members.
        targets: class indices (N,) or distributions (N, K).

    The loss is convex; expectation maximisation from equal weights lowers it at every step (Dempster et al., 1977).
    Raises ValueError for no rows or numbers that are not finite.
    """
    member_logs, targets = _checked(member_logs, targets)
    count = member_logs.shape[1]
    # Which member a label may come from is asked of each row and class, scaled so that nothing underflows.
    likelihoods = np.exp(member_logs - member_logs.max(axis=1, keepdims=True))
    weights = np.full(count, 1 / count)
    for _ in range(_EM_STEPS):
        shares = likelihoods * weights[:, None]
        shares /= shares.sum(axis=1, keepdims=True)
        after = np.einsum("nmk,nk->m", shares, targets)
        after /= after.sum()
        moved, weights = np.abs(after - weights).max(), after
        if moved < _EM_TOLERANCE:
            break
    return weights


def cross_fit(
    raw_logits: np.ndarray,
    targets: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], Any] = fit_temperature,
    apply: Callable[[np.ndarray, Any], np.ndarray] = probabilities_at,
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> np.ndarray:
    """``apply(logits, fitted)`` for every row, with what was fitted on the other folds only: no row judges itself.

    Args:
        raw_logits: (N, ...), or probabilities; targets (N,) or (N, K). With fewer rows than folds, each is a fold.
        fit: from logits and targets of the other folds to what is fitted, such as a temperature.
        apply: from logits of a fold (n, ...) and what was fitted to (n, ...).

    Raises ValueError for fewer than two rows.
    """
    count = len(raw_logits)
    if count < 2:
        raise ValueError(f"cross-fitting needs at least 2 rows; {count} given")
    fold_of_row = np.random.default_rng(seed).permutation(count) % min(folds, count)
    result = None
    for fold in range(min(folds, count)):
        held_out = fold_of_row == fold
        part = apply(raw_logits[held_out], fit(raw_logits[~held_out], targets[~held_out]))
        result = np.empty((count, *part.shape[1:]), part.dtype) if result is None else result
        result[held_out] = part
    return result


def conformal_threshold(probabilities: np.ndarray, targets: np.ndarray, coverage: float = COVERAGE) -> float:
    """The least probability with which a class joins the answer, for the label to be in it a ``coverage`` of the time.

    Split conformal prediction with the least ambiguous sets (Sadinle et al., arXiv 1609.00451): valid on average over
    pictures like those given, not for each class or person. The answer is every class at or above the threshold, and
    the most likely class in any case.

    Args:
        probabilities: (N, K) after temperature.
        targets: class indices (N,).
        coverage: in (0, 1).

    Raises ValueError where ``coverage`` is out of range. Where N is too small for the coverage, 0: every class.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1; {coverage} was given")
    of_label = np.sort(probabilities[np.arange(len(targets)), targets])
    allowed_misses = int(np.floor((len(of_label) + 1) * (1 - coverage) + 1e-9)) - 1
    return 0.0 if allowed_misses < 0 else float(of_label[allowed_misses])


def conformal_sets(probabilities: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Which classes the answer holds, (N, K) bool; never empty."""
    sets = probabilities >= threshold
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets


def _checked(raw_logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    raw_logits, targets = np.asarray(raw_logits, dtype=np.float64), np.asarray(targets)
    if len(raw_logits) == 0 or len(raw_logits) != len(targets):
        raise ValueError(f"{len(raw_logits)} rows of logits and {len(targets)} targets were given; give one for each")
    if not np.isfinite(raw_logits).all():
        raise ValueError("the logits hold NaN or infinity; the model is broken, and no temperature mends it")
    return raw_logits, targets if targets.ndim == 2 else np.eye(raw_logits.shape[-1])[targets]
