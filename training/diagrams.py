"""Architecture diagrams and the cost table of docs/models.md, drawn from the networks themselves.

``python training/diagrams.py`` rewrites both from the published recipes.
"""

import argparse
from pathlib import Path

from torch import nn

import fer_hf  # noqa: F401  makes transformers know the model types
from training.architecture import Stage, count_flops, count_parameters, published_systems, trace
from training.files import write_text

DOCS = Path(__file__).parent.parent / "docs"
TABLE_MARKS = ("<!-- systems:begin -->", "<!-- systems:end -->")

COLOURS = {
    "input": "#d9d9d9",
    "convolution": "#4c78a8",
    "member": "#4c78a8",
    "attention": "#f58518",
    "pooling": "#b3b3b3",
    "dense": "#54a24b",
}
LEGEND = (
    ("convolution", "convolutions"),
    ("attention", "attention whose maps are handed out"),
    ("pooling", "pooling"),
    ("dense", "dense"),
)
INK, FAINT = "#222222", "#6b6b6b"
ROW_IN, WIDTH_IN = 0.42, 10.4
# In inches: centre and greatest width of the funnel, left edges of name, description and shape, right edge of the
# parameter count, left edge and greatest length of its bar.
FUNNEL_X, FUNNEL_MAX, NAME_X, WHAT_X, SHAPE_X, COUNT_X, BAR_X, BAR_MAX = 1.35, 2.3, 2.75, 3.8, 6.55, 8.7, 8.8, 1.4
BUS_IN = 0.85  # from the centre to the lines that feed and collect an ensemble's members


def draw(name: str, model: nn.Module, path: Path) -> None:
    """Write one system's diagram: a row a stage, as wide as its map, with shape and parameters."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    stages = trace(model)
    height = ROW_IN * len(stages) + 1.45
    # Text stays text, and the same network gives the same bytes.
    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans"}
    with plt.rc_context(style):
        figure = plt.figure(figsize=(WIDTH_IN, height))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH_IN), ylim=(height, 0))
        axes.axis("off")
        _title(axes, name, model)
        greatest = max(stage.parameters for stage in stages)
        rows = {0.95 + index * ROW_IN: stage for index, stage in enumerate(stages)}
        _wires(axes, rows)
        for y, stage in rows.items():
            _row(axes, stage, y, stages[0].shape[1], greatest)
        _legend(axes, stages, height - 0.22)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {}, facecolor="white")
        plt.close(figure)


def _title(axes, name: str, model: nn.Module) -> None:
    axes.text(0.2, 0.38, name, fontsize=15, fontweight="bold", color=INK, va="center")
    cost = f"{count_parameters(model):,} parameters · {count_flops(model) / 1e6:,.1f} MFLOPs a face"
    axes.text(WIDTH_IN - 0.2, 0.38, cost, fontsize=10.5, color=FAINT, va="center", ha="right")
    axes.plot([0.2, WIDTH_IN - 0.2], [0.66, 0.66], color="#dddddd", linewidth=1)


def _wires(axes, rows: dict[float, Stage]) -> None:
    """Lines from each stage to the next; members of an ensemble lie side by side between two."""
    style = {"color": "#9a9a9a", "linewidth": 1.2, "zorder": 0}
    top, bottom = min(rows), max(rows)
    members = [y for y, stage in rows.items() if stage.kind == "member"]
    if not members:
        axes.plot([FUNNEL_X, FUNNEL_X], [top, bottom], **style)
        return
    left, right = FUNNEL_X - BUS_IN, FUNNEL_X + BUS_IN
    axes.plot([left, left], [top, members[-1]], **style)
    axes.plot([right, right, FUNNEL_X], [members[0], bottom, bottom], **style)
    for y in members:
        axes.plot([left, right], [y, y], **style)


def _row(axes, stage: Stage, y: float, input_side: int, greatest: int) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    side = stage.shape[1] if len(stage.shape) == 3 else 0
    width = BUS_IN if stage.kind == "member" else FUNNEL_MAX * (0.12 + 0.88 * side / input_side)
    box = {"boxstyle": "round,pad=0,rounding_size=0.05", "linewidth": 0}
    axes.add_patch(FancyBboxPatch((FUNNEL_X - width / 2, y - 0.14), width, 0.28, facecolor=COLOURS[stage.kind], **box))
    if stage.gated and stage.kind != "attention":
        stripe = (FUNNEL_X - width / 2 + 0.03, y - 0.035), width - 0.06, 0.07
        axes.add_patch(Rectangle(*stripe, facecolor=COLOURS["attention"], linewidth=0))
    name = stage.name.removeprefix("backbone.")
    axes.text(NAME_X, y, name, fontsize=10, fontweight="bold", color=INK, va="center")
    axes.text(WHAT_X, y, stage.what, fontsize=10, color=INK, va="center")
    axes.text(SHAPE_X, y, " × ".join(map(str, stage.shape)), fontsize=10, color=INK, va="center")
    if stage.parameters:
        axes.text(COUNT_X, y, f"{stage.parameters:,}", fontsize=10, color=INK, va="center", ha="right")
        bar = (BAR_X, y - 0.09), max(BAR_MAX * stage.parameters / greatest, 0.012), 0.18
        axes.add_patch(Rectangle(*bar, facecolor="#c9d4e3", linewidth=0))


def _legend(axes, stages: list[Stage], y: float) -> None:
    from matplotlib.patches import Rectangle

    kinds = {"convolution" if stage.kind == "member" else stage.kind for stage in stages}
    kinds |= {"attention"} if any(stage.gated for stage in stages) else set()
    x = 0.2
    for kind, words in LEGEND:
        if kind in kinds:
            axes.add_patch(Rectangle((x, y - 0.07), 0.2, 0.14, facecolor=COLOURS[kind], linewidth=0))
            axes.text(x + 0.28, y, words, fontsize=9, color=FAINT, va="center")
            x += 0.6 + 0.078 * len(words)
    note = "width: side of the map · bar: parameters"
    axes.text(WIDTH_IN - 0.2, y, note, fontsize=9, color=FAINT, va="center", ha="right")


def table(systems: dict[str, nn.Module]) -> str:
    """The cost table as Markdown, one row a system."""
    rows = ["| system | class | input | parameters | MFLOPs | diagram |", "|---|---|---|---:|---:|---|"]
    for name, model in systems.items():
        side, kind = model.config.image_size, "grey" if model.config.num_channels == 1 else "RGB"
        rows.append(
            f"| {name} | `{type(model).__name__}` | {side}×{side} {kind} | {count_parameters(model):,} "
            f"| {count_flops(model) / 1e6:,.1f} | [figure](figures/models/{name}.svg) |"
        )
    return "\n".join(rows)


def with_table(page: str, rows: str) -> str:
    """The page with what lies between the table's marks replaced; raises ValueError where a mark is missing."""
    before, begin, rest = page.partition(TABLE_MARKS[0])
    _, end, after = rest.partition(TABLE_MARKS[1])
    if not begin or not end:
        raise ValueError(f"docs/models.md lacks {TABLE_MARKS[0]} or {TABLE_MARKS[1]}, between which the table goes")
    return f"{before}{begin}\n{rows}\n{end}{after}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder that holds models.md and figures/")
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    arguments = parser.parse_args(argv)
    systems = published_systems()
    for name, model in systems.items():
        draw(name, model, arguments.docs / "figures" / "models" / f"{name}.{arguments.format}")
    page = arguments.docs / "models.md"
    write_text(page, with_table(page.read_text(), table(systems)))
    print(f"{len(systems)} diagrams in {arguments.docs / 'figures' / 'models'}, and the table of {page}")


if __name__ == "__main__":
    main()
