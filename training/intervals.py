"""Bootstrap intervals: rows are drawn with replacement, and a figure is computed again for each draw.

Draws are kept as how often each row came up, so that a statistic of all draws is one matrix product. Equal seeds give
equal draws, which makes differences between models on the same rows paired.
"""

from collections.abc import Callable, Iterator

import numpy as np

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
_BLOCK_CELLS = 2**21  # draws × rows held at a time

Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]


def resample(count: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """Blocks (R, count) float32 of how often each row is in each of ``resamples`` draws of ``count`` rows."""
    rng = np.random.default_rng(seed)
    block = max(min(_BLOCK_CELLS // count, resamples), 1)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(count, size=(size, count)) + np.arange(size)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float32)


def bootstrap(statistics: Statistics, count: int, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, dict]:
    """Each figure as ``{"value", "low", "high"}``: on all rows, and the percentile interval of 95%.

    Args:
        statistics: from weights (R, count) of rows to named arrays (R,) or (R, K); NaN where a draw has no value.
        count: number of rows.

    Arrays (R, K) come back as lists of K such records. What has no value is None.
    """
    whole = statistics(np.ones((1, count), dtype=np.float32))
    blocks = [statistics(weights) for weights in resample(count, resamples, seed)]
    return {
        name: _figures(value[0], np.concatenate([block[name] for block in blocks])) for name, value in whole.items()
    }


def _figures(value: np.ndarray, draws: np.ndarray) -> dict | list[dict]:
    if draws.ndim == 2:
        return [_figures(one, draws[:, index]) for index, one in enumerate(value)]
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or len(draws) == 0:
        return {"value": None, "low": None, "high": None}
    low, high = np.percentile(draws, [50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)])
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def rounded(value: float) -> float:
    """A figure for a report: six decimals, more than any interval here can carry."""
    return round(float(value), 6)
