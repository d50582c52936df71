"""Figures of evaluations and runs on matplotlib: confusion, reliability, classes, curves, comparisons.

Each function gives a ``matplotlib.figure.Figure``; ``save_figure`` writes it. Colours are Okabe and Ito's, which stay
apart without colour vision; every bar and cell carries its number.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, MUTED, RULE = "#111827", "#6B7280", "#E5E7EB"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#000000")
_DPI = 144
_SAVE_OPTIONS = {
    ".png": {"metadata": {"Software": None}},  # without it the same figure gives the same bytes whatever wrote it
    ".webp": {"pil_kwargs": {"quality": 90, "method": 6}},
}
_COLOURS_OF_A_DRAWING = 4096  # at most, smoothed edges included; photographs have tens of thousands
_COLOURS = 32  # are enough to smooth edges: 64 look the same and take a sixth more bytes
_SHARE_OF_AN_AREA = 2.5e-4  # of a figure's pixels: a marker; what has fewer is an edge
_TITLE_SIZE, _TEXT_SIZE = 11, 9

Figures = Mapping[str, float | None]
"""``value``, ``low`` and ``high``, as a report holds them."""


def figure_path(path: str | Path) -> Path:
    """The path of a figure. Raises ValueError where its name ends in neither ``.png`` nor ``.webp``."""
    path = Path(path)
    if path.suffix not in _SAVE_OPTIONS:
        raise ValueError(f"figures are written as .png or .webp; {path.name} was given")
    return path


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all, and return its path: ``.png`` for drawings, ``.webp`` for photographs.

    Raises ValueError where the name ends otherwise.
    """
    path = figure_path(path)
    descriptor, part = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    try:
        figure.savefig(part, dpi=_DPI, facecolor="white", **_SAVE_OPTIONS[path.suffix])
        if path.suffix == ".png":
            _store_small(part)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _store_small(path: str) -> None:
    """Make a PNG of lines, areas and text a third of its size by a palette; one of photographs only becomes opaque.

    The palette is every colour of an area and the most frequent of the others, so only smoothed edges change.
    """
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if not image.getcolors(_COLOURS_OF_A_DRAWING):
        image.save(path, "PNG", optimize=True)
        return
    numbers = np.asarray(image).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    colours = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).astype(np.uint8)
    areas = int((counts >= _SHARE_OF_AN_AREA * counts.sum()).sum())
    kept = colours[np.argsort(-counts, kind="stable")[: min(max(areas, _COLOURS), 256)]]
    # Pillow's own search for the nearest colour is rough enough to move white.
    nearest = np.square(colours[:, None].astype(int) - kept[None].astype(int)).sum(2).argmin(1)
    image = Image.fromarray(nearest[place].reshape(numbers.shape).astype(np.uint8), "P")
    image.putpalette(kept.tobytes())
    image.save(path, "PNG", optimize=True)


def confusion_figure(confusion: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Shares of each true class (rows) by predicted class (columns), in percent, with the number of rows beside it."""
    confusion = np.asarray(confusion)
    support = confusion.sum(axis=1)
    shares = 100 * confusion / np.maximum(support, 1)[:, None]
    side = 2.2 + 0.62 * len(names)
    figure, axes = _canvas((side + 0.6, side), title)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(shares.shape):
        if confusion[row, column]:
            text = f"{shares[row, column]:.0f}" if shares[row, column] >= 0.5 else "<1"
            weight = "bold" if row == column else "normal"
            colour = "white" if shares[row, column] > 60 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, size=_TEXT_SIZE, weight=weight)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name}  ({n:,})" for name, n in zip(names, support, strict=True)])
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.grid(which="major", visible=False)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted, % of the true class")
    axes.set_ylabel("label (rows)")
    axes.spines[:].set_visible(False)
    return figure


def reliability_figure(curves: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """Accuracy against confidence for each named curve, whose mappings hold ``confidence``, ``accuracy`` and ``n``."""
    figure, axes = _canvas((5.4, 5.0), title)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.text(0.06, 0.085, "as confident as right", rotation=45, color=MUTED, size=8, rotation_mode="anchor")
    for (name, curve), colour, marker in zip(curves.items(), CYCLE, "os^Dv<>", strict=False):
        axes.plot(
            curve["confidence"], curve["accuracy"], color=colour, marker=marker, markersize=5, linewidth=1.5, label=name
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="mean confidence of a bin", ylabel="share right", aspect="equal")
    axes.legend(loc="upper left", frameon=False, fontsize=_TEXT_SIZE)
    return figure


def per_class_figure(classes: Sequence[Mapping], title: str) -> Figure:
    """Precision, recall and F1 of each class with their intervals, from a report's ``per_class``."""
    figures = {"precision": BLUE, "recall": ORANGE, "f1": GREEN}
    figure, axes = _canvas((2.0 + 1.05 * len(classes), 4.0), title)
    for offset, (name, colour) in enumerate(figures.items()):
        at = np.arange(len(classes)) + 0.26 * (offset - 1)
        _bars(axes, at, [one[name] for one in classes], colour, "F1" if name == "f1" else name)
    axes.set_xticks(range(len(classes)), [f"{one['label']}\n{one['n']:,} rows" for one in classes])
    axes.set_ylim(0, 1.08)
    axes.set_yticks(np.arange(6) / 5, [f"{20 * step} %" for step in range(6)])
    axes.tick_params(axis="x", length=0)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False, fontsize=_TEXT_SIZE)
    return figure


def _bars(axes: Axes, at: np.ndarray, figures: Sequence[Figures], colour: str, label: str, width: float = 0.24) -> None:
    known = [index for index, figure in enumerate(figures) if figure["value"] is not None]
    at, figures = np.asarray(at)[known], [figures[index] for index in known]
    values = np.array([figure["value"] for figure in figures])
    ends = np.array([(figure["low"], figure["high"]) for figure in figures]).reshape(-1, 2)
    reach = np.abs(ends - values[:, None]).T
    axes.bar(at, values, width=width, color=colour, label=label)
    axes.errorbar(at, values, yerr=reach, fmt="none", ecolor=INK, elinewidth=0.8, capsize=2, alpha=0.7)
    for x, value, (_, high) in zip(at, values, ends, strict=True):
        text = f"{100 * value:.0f}"
        axes.annotate(text, (x, max(high, value)), (0, 3), textcoords="offset points", ha="center", size=7, color=INK)


CURVES = ("loss", "accuracy", "macro_f1", "precision", "recall", "auc")


def curves_figure(epochs: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Each figure of a training log over epochs, training and validation on one axis, and the learning rate.

    Args:
        epochs: the lines of ``log.jsonl``: ``epoch``, ``lr`` and ``train_*`` and ``validation_*`` of CURVES.
    """
    shown = [name for name in CURVES if any(f"validation_{name}" in line for line in epochs)]
    columns = 2 if len(shown) < 4 else 4
    rows = -(-(len(shown) + 1) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.7 * rows + 0.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=_TITLE_SIZE, color=INK, weight="bold")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    x = [line["epoch"] for line in epochs]
    for axes, name in zip(panels, shown, strict=False):
        for part, colour in (("train", BLUE), ("validation", ORANGE)):
            if any(f"{part}_{name}" in line for line in epochs):
                values = [line.get(f"{part}_{name}", np.nan) for line in epochs]
                axes.plot(x, values, color=colour, linewidth=1.5, label=part, marker="." if len(x) < 3 else None)
        _style(axes, name.replace("_", " ").replace("f1", "F1").replace("auc", "AUC"))
    panels[len(shown)].plot(x, [line["lr"] for line in epochs], color=INK, linewidth=1.5)
    _style(panels[len(shown)], "learning rate")
    panels[0].legend(frameon=False, fontsize=_TEXT_SIZE)
    for axes in panels[: len(shown) + 1]:
        axes.set_xlabel("epoch", size=8)
    for axes in panels[len(shown) + 1 :]:
        axes.set_visible(False)
    return figure


def comparison_figure(rows: Mapping[str, Figures], title: str, xlabel: str, zero: bool = False) -> Figure:
    """Named values with their intervals, one a line from the top; ``zero`` draws the line of no difference."""
    figure, axes = _canvas((7.0, 1.3 + 0.38 * len(rows)), title)
    at = np.arange(len(rows))[::-1]
    values = np.array([row["value"] for row in rows.values()])
    reach = np.abs(np.array([(row["low"], row["high"]) for row in rows.values()]) - values[:, None]).T
    if zero:
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.errorbar(values, at, xerr=reach, fmt="o", color=BLUE, ecolor=BLUE, elinewidth=1.6, capsize=3, markersize=5)
    for y, row in zip(at, rows.values(), strict=True):
        text = f"{100 * row['value']:+.1f}" if zero else f"{100 * row['value']:.1f}"
        axes.annotate(text, (row["value"], y), (0, 6), textcoords="offset points", ha="center", size=8, color=INK)
    axes.set_yticks(at, list(rows))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    axes.set_xlabel(xlabel)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure


def strength_figure(clean: Figures, corruptions: Sequence[Mapping], title: str) -> Figure:
    """Accuracy over the strengths of each corruption, from the picture as it was.

    Args:
        clean: the accuracy without corruption.
        corruptions: each with ``name``, ``unit`` and ``strengths``, which hold ``strength`` and ``accuracy``.
    """
    columns = 3
    rows = -(-len(corruptions) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * rows + 0.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=_TITLE_SIZE, color=INK, weight="bold")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, corruption in zip(panels, corruptions, strict=False):
        figures = [clean, *(one["accuracy"] for one in corruption["strengths"])]
        x = np.arange(len(figures))
        axes.fill_between(x, [one["low"] for one in figures], [one["high"] for one in figures], color=BLUE, alpha=0.18)
        axes.plot(x, [one["value"] for one in figures], color=BLUE, marker="o", markersize=4, linewidth=1.5)
        axes.set_xticks(x, ["none", *(one["strength"] for one in corruption["strengths"])], size=8)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        axes.set_xlabel(corruption["unit"])
        _style(axes, corruption["name"])
    for axes in panels[len(corruptions) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("accuracy, %", size=8)
    return figure


def region_figure(area: Mapping[str, float], methods: Sequence[Mapping], title: str) -> Figure:
    """Share of each map on each region with its interval, beside the region's share of the picture.

    Args:
        area: region to share of the picture.
        methods: each with ``name`` and ``share``: region to figures.
    """
    figure, axes = _canvas((2.4 + 1.6 * len(area), 3.6), title)
    width = 0.8 / (len(methods) + 1)
    for number, colour in zip(range(len(methods) + 1), ("#9CA3AF", *CYCLE), strict=False):
        at = np.arange(len(area)) + width * (number - len(methods) / 2)
        if number == 0:
            figures, name = [{"value": share, "low": share, "high": share} for share in area.values()], "area"
        else:
            method = methods[number - 1]
            figures, name = [method["share"][region] for region in area], method["name"]
        _bars(axes, at, figures, colour, name, 0.92 * width)
    axes.set_xticks(range(len(area)), list(area))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.tick_params(axis="x", length=0)
    axes.margins(y=0.12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, frameon=False, fontsize=_TEXT_SIZE)
    return figure


@dataclass(frozen=True)
class Sample:
    """A crop (H, W, 3) uint8, the same with a heat map over it, and what is written below the two."""

    crop: np.ndarray
    attention: np.ndarray
    text: str


def sample_figure(samples: Sequence[Sample], title: str) -> Figure:
    """Crops with their attention and text, up to four pairs in a row."""
    columns = min(len(samples), 4)
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(max(2.2 * columns, 4.4) + 0.2, 1.45 * rows + 0.36), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=_TITLE_SIZE, color=INK, weight="bold")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, sample in zip(panels, samples, strict=False):
        gap = np.full((len(sample.crop), max(len(sample.crop) // 24, 1), 3), 255, dtype=np.uint8)
        axes.imshow(np.hstack([sample.crop, gap, sample.attention]), interpolation="nearest")
        axes.set_xlabel(sample.text, size=8, color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes in panels[len(samples) :]:
        axes.set_visible(False)
    return figure


def _canvas(size_in: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size_in, layout="constrained")
    axes = figure.subplots()
    _style(axes, title)
    return figure, axes


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=_TITLE_SIZE, color=INK, weight="bold", pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=_TEXT_SIZE)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_size(_TEXT_SIZE)
    axes.yaxis.label.set_size(_TEXT_SIZE)
