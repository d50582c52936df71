"""Copies among pictures: exact ones by their pixels, near ones by what survives JPEG, mirroring, shifts and brightness.

Near copies are found in two steps on grey thumbnails of 48×48. A descriptor (the middle of the band-passed thumbnail,
reduced to 64 numbers) of every picture, mirrored and shifted by up to two pixels, is compared with that of every other.
Pairs that are alike are then held against each other pixel by pixel, by the normalised correlation of their fine
structure at the best shift: two different faces share their coarse structure, and hardly any of the fine one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from datasets.utils import tqdm
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

THUMB_PX = 48
CANDIDATE_COSINE = 0.7
NEAR_CORRELATION = 0.8  # of FER2013's pairs above 0.7, all that were looked at show one photo; below 0.65 few do
_MARGIN_PX = 4  # of the thumbnail that descriptors do not see: shifts bring other pixels in there
_SHIFTS_PX = tuple((dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2))
_DESCRIPTOR_SIZE = 64
_SAMPLE = 8192  # pictures that the axes of the descriptor are fitted to
_CHUNK = 1024
_FLAT_STD = 2.0  # grey levels: below it a thumbnail has no structure to compare


@dataclass(frozen=True)
class NearPair:
    """Two pictures that look the same: rows, the correlation of their fine structure, whether one is mirrored."""

    first: int
    second: int
    correlation: float
    mirrored: bool


def groups_of_equal(keys: np.ndarray) -> list[np.ndarray]:
    """Ascending row indices of each group of two or more equal keys (N,), ordered by their first row."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
    groups = [group for group in np.split(order, starts[1:]) if len(group) > 1]
    return sorted(groups, key=lambda group: group[0])


def near_pairs(thumbnails: np.ndarray, distinct: np.ndarray | None = None) -> list[NearPair]:
    """Pairs of near copies among thumbnails (N, 48, 48) uint8, most alike first; flat pictures are in none.

    ``distinct`` are the rows to compare, e.g. one of each group of exact copies; default: all. Time grows with the
    square of their number, memory with their number.
    """
    rows = np.arange(len(thumbnails)) if distinct is None else np.asarray(distinct, dtype=np.int64)
    rows = rows[[thumbnails[row].std() > _FLAT_STD for row in rows]] if len(rows) else rows
    if len(rows) < 2:
        return []
    images = thumbnails[rows]
    fine = np.concatenate([_band(part, None, 3).astype(np.float16) for part in _parts(images)])
    pairs = []
    for first, second, variant in tqdm(_candidates(images), total=-(-len(images) // _CHUNK), desc="Comparing pictures"):
        correlation = _best_correlation(fine, first, second, variant)
        for at in np.flatnonzero(correlation >= NEAR_CORRELATION):
            pair = sorted((int(rows[first[at]]), int(rows[second[at]])))
            pairs.append(NearPair(*pair, float(correlation[at]), bool(variant[at] >= len(_SHIFTS_PX))))
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.first, pair.second))


def clusters(pairs: list[tuple[int, int]], count: int) -> list[np.ndarray]:
    """Groups among ``count`` rows that the pairs connect, each ascending, ordered by their first row."""
    if not pairs:
        return []
    first, second = np.array(pairs).T
    graph = coo_matrix((np.ones(len(pairs), bool), (first, second)), shape=(count, count))
    return groups_of_equal(connected_components(graph, directed=False)[1])


def _candidates(images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """First and second picture and variant (index into the shifts, then the mirrored ones) of alike pairs."""
    variants, targets = _descriptors(images)
    for start in range(0, len(images), _CHUNK):
        first, second, variant, cosine = [], [], [], []
        for index, queries in enumerate(variants):
            alike = queries[start : start + _CHUNK] @ targets[start:].T
            rows, columns = (alike >= CANDIDATE_COSINE).nonzero(as_tuple=True)
            rows, columns = rows[columns > rows], columns[columns > rows]
            first.append(rows.numpy() + start)
            second.append(columns.numpy() + start)
            variant.append(np.full(len(rows), index))
            cosine.append(alike[rows, columns].numpy())
        yield _best_of_each_pair(*map(np.concatenate, (first, second, variant, cosine)))


def _best_of_each_pair(
    first: np.ndarray, second: np.ndarray, variant: np.ndarray, cosine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs (P,) without repetition, each with the variant in which it is most alike."""
    order = np.lexsort((-cosine, second, first))
    first, second, variant = first[order], second[order], variant[order]
    is_best = np.r_[True, (first[1:] != first[:-1]) | (second[1:] != second[:-1])][: len(first)]
    return first[is_best], second[is_best], variant[is_best]


def _descriptors(images: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Unit descriptors (N, 64) of the pictures in every variant, and of the pictures as they are."""
    sample = images[np.linspace(0, len(images) - 1, min(len(images), _SAMPLE)).astype(np.int64)]
    axes = _principal_axes(_middles(_band(sample, 1, 4), (0, 0)))
    columns: list[list[np.ndarray]] = [[] for _ in range(2 * len(_SHIFTS_PX))]
    for part in _parts(images):
        band = _band(part, 1, 4)
        turned = [(one, shift) for one in (band, band[:, :, ::-1]) for shift in _SHIFTS_PX]
        for column, (one, shift) in zip(columns, turned, strict=True):
            column.append(_unit(_middles(one, shift) @ axes))
    variants = [torch.from_numpy(np.concatenate(column)) for column in columns]
    return variants, variants[_SHIFTS_PX.index((0, 0))]


def _band(images: np.ndarray, narrow: float | None, wide: float) -> np.ndarray:
    """Pictures (N, H, W) less what is coarser than ``wide`` and finer than ``narrow`` (deviations in pixels)."""
    images = images.astype(np.float32)
    kept = images if narrow is None else gaussian_filter(images, (0, narrow, narrow))
    return kept - gaussian_filter(images, (0, wide, wide))


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))


def _middles(images: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """The shifted middle of each picture as 20×20 sums of 2×2 pixels, without its mean: (N, 400) float32."""
    low = [_MARGIN_PX + by for by in shift]
    side = THUMB_PX - 2 * _MARGIN_PX
    middle = images[:, low[0] : low[0] + side, low[1] : low[1] + side]
    rows = middle[:, ::2] + middle[:, 1::2]
    blocks = (rows[:, :, ::2] + rows[:, :, 1::2]).reshape(len(images), -1)
    return _unit(blocks - blocks.mean(axis=1, keepdims=True))


def _principal_axes(vectors: np.ndarray) -> np.ndarray:
    """The main axes (D, 64) of vectors (N, D), through the origin: about a mean, two near copies would be opposites."""
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    return np.ascontiguousarray(axes[:, ::-1][:, :_DESCRIPTOR_SIZE])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _best_correlation(fine: np.ndarray, first: np.ndarray, second: np.ndarray, variant: np.ndarray) -> np.ndarray:
    """Normalised correlation (P,) of the fine structure of each pair at the best shift next to the variant's."""
    shifts = np.array(_SHIFTS_PX)[variant % len(_SHIFTS_PX)]
    mirrored = variant >= len(_SHIFTS_PX)
    best = np.full(len(first), -1, np.float32)
    side = THUMB_PX - 2 * _MARGIN_PX
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        moved = fine[first[part]].astype(np.float32)
        moved[mirrored[part]] = moved[mirrored[part], :, ::-1]
        fixed = fine[second[part], _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX].reshape(len(moved), -1)
        fixed = fixed.astype(np.float32)
        fixed = _unit(fixed - fixed.mean(axis=1, keepdims=True))
        windows = np.lib.stride_tricks.sliding_window_view(moved, (side, side), axis=(1, 2))
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                at = _MARGIN_PX + shifts[part] + (dy, dx)
                window = windows[np.arange(len(moved)), at[:, 0], at[:, 1]].reshape(len(moved), -1)
                window = _unit(window - window.mean(axis=1, keepdims=True))
                best[part] = np.maximum(best[part], (window * fixed).sum(axis=1))
    return best
