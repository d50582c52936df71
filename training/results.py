"""Tables of every shipped model from its report: ``python training/results.py`` rewrites docs/results.md and README.md.

What was trained without being shipped has its report and recipe under ``docs/reports/``.

``--check`` changes nothing and fails where a table is not what the reports say.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from fer_hf.model_folder import settings_file
from training.card import read_folds, read_seeds
from training.card_text import FOLDS_HEAD, folds_readings, range_text, table
from training.files import write_text

ROOT = Path(__file__).resolve().parent.parent
FER_PLUS = "ferplus-majority"
EFFICIENT = ("cbam_5cnn", "efficientnet_b3")
"""What is called the efficient one, and what it is compared with."""
NEAREST = 2
"""How many of the last groups in a memory.json are the nearest quarter."""
START, END = "<!-- results: python training/results.py -->", "<!-- /results -->"


def read_reports(cards: Path) -> list[dict]:
    """Every report in the folders of ``cards`` with what its recipe says of claim and trials; by labels, best first."""
    reports = []
    for path in sorted(cards.glob("*/report*.json")):
        recipe = path.parent / "recipe.yaml"
        recipe = recipe if recipe.is_file() else settings_file(path.parent)  # an ensemble's description, which is JSON
        stated = yaml.safe_load(recipe.read_text())
        said = {key: stated.get(key) for key in ("claim", "claimed_accuracy", "trials")}
        report = json.loads(path.read_text())
        found = {"folder": path.parent.name, "over_folds": read_folds(path.parent)}
        reports.append(report | said | found | {"seeds": read_seeds(path.parent, report)})
    return sorted(reports, key=lambda report: (report["labels"], -_shown(report)))


def _best(report: dict) -> dict:
    return report["metrics_tta"] or report["metrics"]


def _over_seeds(report: dict, key: str, averaged: bool) -> dict | None:
    """Mean and deviation of a figure over the runs of a recipe; None where there is one run."""
    return report["seeds"] and report["seeds"]["over_runs"]["views_averaged" if averaged else "one_view"][key]


def _shown(report: dict) -> float:
    """The accuracy that the tables show, with views averaged where there are any."""
    over = _over_seeds(report, "accuracy", bool(report["metrics_tta"]))
    return over["mean"] if over else _best(report)["accuracy"]["value"]


def _cell(report: dict, key: str, averaged: bool, interval: bool = True) -> str:
    """A figure in percent: the mean over seeds with its deviation, else that of the one run with its interval."""
    if over := _over_seeds(report, key, averaged):
        return f"{100 * over['mean']:.1f} ± {100 * over['deviation']:.1f}, {len(report['seeds']['runs'])} seeds"
    return _percent((report["metrics_tta"] if averaged else report["metrics"])[key], interval)


def _judged_by(report: dict) -> str:
    if report["labels"] == FER_PLUS:
        return f"FER+ majority, {len(report['classes'])} classes"
    return "FER2013" if report["labels"] == "fer2013" else report["labels"]


def _percent(figure: dict, interval: bool = False) -> str:
    text = f"{100 * figure['value']:.1f}"
    return f"{text} ({100 * figure['low']:.1f}–{100 * figure['high']:.1f})" if interval else text


def short_table(reports: list[dict]) -> str:
    """The table of the README."""
    rows = [
        "| model | judged by | accuracy, % (95% interval) | macro-F1, % | ECE | parameters | file |",
        "|---" * 7 + "|",
    ]
    for report in reports:
        cost, labels, averaged = report["cost"], _judged_by(report), bool(report["metrics_tta"])
        rows.append(
            f"| [{report['folder']}](model_cards/{report['folder']}) | {labels} "
            f"| {_cell(report, 'accuracy', averaged)} | {_cell(report, 'macro_f1', averaged, False)} "
            f"| {_ece(report):.3f} | {cost['parameters'] / 1e6:.2f} M | {cost['file_mb']:.1f} MB |"
        )
    return "\n".join(rows)


def _ece(report: dict) -> float:
    """Calibration error at a cross-fitted temperature, of the views that the accuracy beside it is of."""
    if over := _over_seeds(report, "ece", bool(report["metrics_tta"])):
        return over["mean"]
    return report["calibration"]["tta" if report["metrics_tta"] else "single"]["ece"]["cross_fitted"]


def full_table(reports: list[dict]) -> str:
    """The table of docs/results.md."""
    head = (
        "| model | published claim | judged by | split, n | accuracy, % | with views averaged, % | macro-F1, % | AUC "
        "| ECE at 1 → fitted | ECE with views | parameters | MFLOPs | MB | ms a face | trials |"
    )
    rows = [head, "|---" * 15 + "|"]
    for report in reports:
        cost, averaged = report["cost"], bool(report["metrics_tta"])
        auc = (_over_seeds(report, "auc", averaged) or {"mean": _best(report)["auc"]["value"]})["mean"]
        auc = "–" if auc is None else f"{auc:.3f}"  # there is none of rows of one class
        ece = report["calibration"]["single"]["ece"]
        with_views = f"{_ece(report):.3f}" if report["metrics_tta"] else "–"
        rows.append(
            f"| [{report['folder']}](../model_cards/{report['folder']}) | {_claim(report)} "
            f"| {_judged_by(report)} | {report['split']}, {report['n']:,} "
            f"| {_cell(report, 'accuracy', False)} | {_cell(report, 'accuracy', averaged)} "
            f"| {_cell(report, 'macro_f1', averaged)} | {auc} "
            f"| {ece['at_1']:.3f} → {ece['cross_fitted']:.3f} "
            f"| {with_views} | {cost['parameters']:,} | {cost['mflops']:.0f} "
            f"| {cost['file_mb']:.1f} | {cost['ms_per_face']:.1f} | {report['trials'] or '–'} |"
        )
    return "\n".join(rows)


def _claim(report: dict) -> str:
    """The published figures, marked where ours are below them; of a system judged over folds, the mark is there."""
    if report["over_folds"]:
        return "[over folds](#over-folds)"
    return _against_claim(report, _shown(report))


def _against_claim(report: dict, accuracy: float) -> str:
    claimed = report["claimed_accuracy"]
    missed = claimed is not None and 100 * accuracy < claimed
    return f"{report['claim'] or '–'}{' (**missed**)' if missed else ''}"


def ensembles_section(reports: list[dict]) -> str:
    """Each ensemble beside its best member, empty where there is none."""
    rows = []
    for report in reports:
        if "members" not in report:
            continue
        compared = report["members"]["tta"] or report["members"]["single"]
        best, differences = compared["best"], compared["against_best"]
        rows.append(
            [
                f"[{report['folder']}](../model_cards/{report['folder']})",
                _judged_by(report),
                range_text(_best(report)["accuracy"]),
                f"{best}, {_percent(compared['figures'][best]['accuracy'])}",
                *(range_text(differences[key]) for key in ("accuracy", "macro_f1")),
            ]
        )
    if not rows:
        return ""
    head = [
        "ensemble",
        "judged by",
        "accuracy, %",
        "best member, %",
        "accuracy gained, points",
        "macro-F1 gained, points",
    ]
    return f"""
## Ensembles against their members

The best member is the one with the highest accuracy on these very rows, which favours it. Gains are paired: every
bootstrap draw holds the same rows for both, so an interval above 0 is a gain.

{table(head, rows)}
"""


def efficiency_section(reports: list[dict]) -> str:
    """The claim that cbam_5cnn is the efficient one beside efficientnet_b3, tested; empty unless both were scored."""
    pair = [one for name in EFFICIENT for one in reports if one["folder"] == name and one["labels"] == FER_PLUS]
    if len(pair) < len(EFFICIENT):
        return ""
    rows = [
        [
            f"[{one['folder']}](../model_cards/{one['folder']})",
            range_text(_best(one)["accuracy"]),
            range_text(_best(one)["macro_f1"]),
            f"{one['cost']['parameters']:,}",
            f"{one['cost']['mflops']:,.0f}",
            f"{one['cost']['file_mb']:.1f}",
            f"{one['cost']['ms_per_face']:.1f}",
        ]
        for one in pair
    ]
    said, other = (one["cost"] for one in pair)
    words = {"parameters": "parameters", "mflops": "operations", "ms_per_face": "milliseconds a face"}
    ratios = ", ".join(f"{said[key] / other[key]:.1f} times the {word}" for key, word in words.items())
    head = ["model", "accuracy, %", "macro-F1, %", "parameters", "MFLOPs", "MB", "ms a face"]
    return f"""
## Is cbam_5cnn the efficient one?

Its source says so, and compares the training row of one network with the validation row of the other. On the same rows,
labels and machine cbam_5cnn has {ratios} of efficientnet_b3:

{table(head, rows)}

Each network sees the size that its recipe names, and neither schedule is as long as the published one.
"""


def folds_section(reports: list[dict]) -> str:
    """What was scored over folds, beside its claim; empty where nothing was."""
    rows = []
    for report in reports:
        name = f"[{report['folder']}](../model_cards/{report['folder']})"
        rows += [
            [name, *reading.cells, _against_claim(report, reading.metrics["accuracy"]["value"])]
            for reading in folds_readings(report["over_folds"])
        ]
    if not rows:
        return ""
    return f"""
## Over folds

Stratified folds: every row is judged by a model that did not learn from it.

{table(["model", *FOLDS_HEAD, "published claim"], rows)}
"""


def memories_section(cards: Path) -> str:
    """What each memory of training rows changes, for pictures near to one and far; empty where there is none."""
    rows = []
    for path in sorted(cards.rglob("memory.json")):
        record = json.loads(path.read_text())
        whole, *groups = record["validation"]
        rows.append(
            [
                f"[{path.parent.name}](../model_cards/{path.parent.relative_to(cards)})",
                f"{record['rows']:,} × {record['size']}",
                *(_with_memory([whole]), _with_memory(groups[-NEAREST:]), _with_memory(groups[:-NEAREST])),
            ]
        )
    if not rows:
        return ""
    head = ["model", "rows × bytes", "all pictures, %", "the quarter nearest to a remembered one, %", "the others, %"]
    return f"""
## What a memory adds

Some models remember their training rows beside their weights (`training/remember.py`): accuracy on validation, one
view, of the classifier alone → with its memory. FER2013 holds near copies of some photographs, and only equal ones are
left out of training: most are in the quarter that is nearest to a remembered row. Photographs from elsewhere have no
copies there, so the last column says more of them.

{table(head, rows)}
"""


def _with_memory(groups: list[dict]) -> str:
    n = sum(group["n"] for group in groups)
    figures = (sum(group["n"] * group[key] for group in groups) / n for key in ("classifier_accuracy", "accuracy"))
    return " → ".join(f"{100 * figure:.1f}" for figure in figures)


def unshipped_section(reports: list[dict]) -> str:
    """What was trained to be reported and has no model folder; empty where nothing was."""
    if not reports:
        return ""
    head = ["recipe", "judged by", "accuracy, %", "with views averaged, %", "macro-F1, %", "ECE with views", "trials"]
    rows = [
        [
            f"[{report['folder']}](reports/{report['folder']}/recipe.yaml)",
            _judged_by(report),
            _cell(report, "accuracy", False),
            _cell(report, "accuracy", bool(report["metrics_tta"])),
            _cell(report, "macro_f1", bool(report["metrics_tta"])),
            f"{_ece(report):.3f}",
            str(report["trials"]),
        ]
        for report in reports
    ]
    return f"""
## Reported, not shipped

Trained by the recipe and scored by `training/eval.py`; the weights are not in this repository, or only as a member in
the folder of an ensemble.

{table(head, rows)}
"""


def results_page(reports: list[dict], unshipped: list[dict], cards: Path) -> str:
    """The whole of docs/results.md, with what lies beside the reports in ``cards``."""
    return f"""# Results

FER2013's Training rows train and its PublicTest rows (validation here) select; no figure was chosen on a test split.
Checkpoint and temperature are chosen on validation, so read these as selection scores. Intervals are 95% bootstrap
percentile intervals over rows. "With views averaged" is the mean over the views that the report's command names:
`flip` is a crop and its mirror image, `ten` ten crops. ECE (15 equal-mass bins, one view) stands at temperature 1,
then at a temperature cross-fitted over five folds, and "with views" is that of the averaged answers, cross-fitted too.
Milliseconds a face are of the machine that last timed the models (`training/cost.py`). Trials are the runs that were
made of a system before this one was chosen, itself included. Where a system was trained from several seeds, mean ±
standard deviation over them stand in place of the interval. **Missed** marks a figure below the published one, whatever
split or data that was taken on.

{full_table(reports)}
{ensembles_section(reports)}{memories_section(cards)}{efficiency_section(reports)}{folds_section(reports)}\
{unshipped_section(unshipped)}
Each report holds the `command` that makes it again. What helped on the way there and what did not, with figures:
[lessons.md](lessons.md).
"""


def replaced(text: str, table: str) -> str:
    """README text with the table between its markers renewed. Raises ValueError where the markers are missing."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md lacks the lines {START} and {END}")
    return f"{before}{START}\n{table}\n{END}{after}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args(argv)
    cards = ROOT / "model_cards"
    reports = read_reports(cards)
    readme, page = ROOT / "README.md", ROOT / "docs" / "results.md"
    unshipped = read_reports(ROOT / "docs" / "reports")
    wanted = {readme: replaced(readme.read_text(), short_table(reports)), page: results_page(reports, unshipped, cards)}
    for path, text in wanted.items():
        if arguments.check:
            if not path.is_file() or path.read_text() != text:
                raise ValueError(f"{path.name} is not what the reports say; run python training/results.py")
        else:
            write_text(path, text)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"results.py: {error}")
