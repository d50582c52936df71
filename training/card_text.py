"""Sentences and tables of a model card, each from one report or record; no figure is written by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.provenance import different_pictures

OWN = "dataset"  # labels that came with pictures other than FER2013's
LABEL_NAMES = {
    "fer2013": "FER2013 labels",
    "fer2013-votes": "FER2013 labels, in equal parts with what FER+ votes say of them",
    "ferplus-majority": "FER+ majority labels",
    "ferplus-soft": "FER+ vote shares",
    OWN: "the data set's labels",
}
SPLIT_NAMES = {"train": "Training", "validation": "validation (PublicTest)", "test": "test (PrivateTest)"}
SEEN = 0.5  # share of pictures from which on a split counts as the one that served for something


@dataclass(frozen=True)
class Figure:
    """How a figure of a report is called, and whether it is shown as a percentage."""

    name: str
    percent: bool = True


FIGURES = {
    "accuracy": Figure("Accuracy"),
    "accuracy_distinct": Figure("Accuracy, copies of a picture counted once"),
    "macro_f1": Figure("F1, macro"),
    "weighted_f1": Figure("F1, weighted"),
    "macro_precision": Figure("Precision, macro"),
    "macro_recall": Figure("Recall, macro"),
    "weighted_precision": Figure("Precision, weighted"),
    "auc": Figure("AUC, one against the rest, macro", percent=False),
    "loss": Figure("Loss (nats)", percent=False),
    "js_divergence": Figure("Jensen–Shannon divergence to the raters (bits)", percent=False),
    "ece": Figure("Expected calibration error, temperature cross-fitted"),
}


def data_name(report: dict) -> str:
    """What was scored on, as a title: ``FER2013 validation (PublicTest), FER+ majority labels``."""
    if report["labels"] == OWN:
        return f"{report['split']} split, {LABEL_NAMES[OWN]}"
    return f"FER2013 {SPLIT_NAMES[report['split']]}, {LABEL_NAMES[report['labels']]}"


def cost_text(cost: dict) -> str:
    """Where the milliseconds were measured."""
    if cost["device"] != "cpu":
        return f"measured on one {cost['device']}"
    return f"measured on {cost['threads']} thread(s) of a CPU with {cost['cpus']}"


def range_text(figure: dict, percent: bool = True) -> str:
    """A figure with its interval: ``87.6 [86.4, 88.8]``; a dash where there is none."""
    if figure["value"] is None:
        return "–"
    scale, digits = (100, 1) if percent else (1, 3)
    value, low, high = (f"{scale * figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def protocol_text(report: dict) -> str:
    """What was scored, and what these rows had served for before."""
    left_out = report["rows_left_out"]
    without = f" ({left_out:,} more have no such label and are left out)" if left_out else ""
    seen = {role: share for role, share in report["seen"].items() if share is not None}
    served = [role for role, share in seen.items() if share >= SEEN]
    uses = {
        "train": "trained the weights",
        "start": "trained the weights that training started from",
        "teacher": "trained its teachers",
        "selection": "chose the checkpoint",
        "temperature": "set the temperature",
        "member_weights": "set the members' weights",
    }
    if served:
        standing = f"They also {' and '.join(uses[role] for role in served)}, so this is no test."
    elif "train" in seen:
        standing = "They served neither for training nor for a choice."
    else:
        standing = "What they served for before is not recorded."
    shared = max(seen.get(role, 0) for role in ("train", "start", "teacher"))
    overlap = f" About {shared:.1%} of them equal a training picture." if 0 < shared < SEEN else ""
    fitted = " and ".join(name.replace("_", " ") for name in report.get("cross_fitted", ()))
    folds = report["calibration"]["folds"]
    crossed = f" Figures use {fitted} cross-fitted over {folds} folds: no row is judged by itself." if fitted else ""
    return f"{report['n']:,} rows, {report['n_distinct']:,} distinct pictures{without}. {standing}{overlap}{crossed}"


def members_text(report: dict) -> str:
    """An ensemble's members, and how it compares with the best of them; empty for a single model."""
    if "members" not in report:
        return ""
    members, views = report["members"], "tta" if report["members"]["tta"] else "single"
    compared = members[views]
    rows = [
        [name, f"{members['weights'][name]:.3f}", range_text(one["accuracy"]), range_text(one["macro_f1"])]
        for name, one in sorted(compared["figures"].items(), key=lambda item: -item[1]["accuracy"]["value"])
    ]
    difference = compared["against_best"]["accuracy"]
    verdict = "beats" if difference["low"] > 0 else "does not clearly beat"
    how = f"{report['tta']} TTA" if views == "tta" else "one view"
    return (
        f"{table(['member, ' + how, 'weight', 'accuracy, %', 'F1, macro, %'], rows)}\n\n"
        f"The ensemble {verdict} its best member on these rows, {compared['best']}: the accuracy differs by "
        f"{range_text(difference)} points, the macro F1 by {range_text(compared['against_best']['macro_f1'])} (paired)."
    )


@dataclass(frozen=True)
class FoldsReading:
    """What a record of training/cross_validate.py says of one view, or of views averaged: cells of its row, figures."""

    cells: list[str]  # as under FOLDS_HEAD
    metrics: dict[str, dict]


FOLDS_HEAD = ["draw", "start", "rows", "views", "accuracy, %", "F1, macro, %", "F1, weighted, %"]


def folds_readings(records: dict[str, dict]) -> list[FoldsReading]:
    """One reading of each record by its draw, and a second of those where views were averaged."""
    readings = []
    for name, record in records.items():
        start = f"`{_run_name(record['start_from'])}`" if record["start_from"] else "random weights"
        views = {"one": record["metrics"]}
        if record["tta"]:
            views[f"{len(record['tta'].split(','))} averaged"] = record["metrics_tta"]
        for seen, metrics in views.items():
            figures = [range_text(metrics[key]) for key in ("accuracy", "macro_f1", "weighted_f1")]
            cells = [name.replace("_", " "), start, f"{record['n']:,}", seen, *figures]
            readings.append(FoldsReading(cells, metrics))
    return readings


def _run_name(folder: str) -> str:
    """What saved weights are called: a run's best model goes by the name of the run."""
    path = Path(folder)
    return path.parent.name if path.name == "best" else path.name


def folds_text(records: dict[str, dict]) -> str:
    """The table of what was scored over folds, and how to make it again; empty without records."""
    if not records:
        return ""
    rows = [reading.cells for reading in folds_readings(records)]
    commands = "\n".join(f"- {name.replace('_', ' ')}: `{one['command']}`" for name, one in records.items())
    folds = " or ".join(sorted({str(record["folds"]) for record in records.values()}))
    return (
        f"{table(FOLDS_HEAD, rows)}\n\n{folds} stratified folds: every row is judged by a model that did not "
        f"learn from it. Brackets hold 95% bootstrap intervals over rows.\n\n{commands}"
    )


def _plain(key: str, value: float) -> str:
    return f"{100 * value:.1f}" if FIGURES[key].percent else f"{value:.3f}"


def seeds_text(record: dict | None, report: dict) -> str:
    """The table of training/seeds.py's record with mean and deviation; empty without one."""
    if record is None:
        return ""
    view = "views_averaged" if report["metrics_tta"] else "one_view"
    over, keys = record["over_runs"][view], ("accuracy", "macro_f1", "auc", "ece")
    rows = []
    for run in record["runs"]:
        these = ", these weights" if run["weights_sha256"] == report["weights_sha256"] else ""
        rows.append([f"{run['seed']}{these}", *(_plain(key, run[view][key]) for key in keys)])
    mean = [f"**{_plain(key, over[key]['mean'])}** ± {_plain(key, over[key]['deviation'])}" for key in keys]
    how = f"{report['tta']} TTA" if report["metrics_tta"] else "one view"
    head = [f"seed, {how}", "accuracy, %", "F1, macro, %", "AUC", "ECE, cross-fitted, %"]
    return (
        f"{table(head, [*rows, ['mean ± standard deviation', *mean]])}\n\nThe same recipe, started from other seeds. "
        f"Tables elsewhere show the mean.\n\nAgain: `{record['command']}`"
    )


def results_table(report: dict) -> str:
    """Every overall figure, plain and averaged over views."""
    columns = [("one view", report["metrics"])]
    if report["metrics_tta"]:
        columns.append((f"{report['tta']} TTA", report["metrics_tta"]))
    rows = [
        [figure.name, *(range_text(metrics[key], figure.percent) for _, metrics in columns)]
        for key, figure in FIGURES.items()
        if key in report["metrics"]
    ]
    return table(["", *(name for name, _ in columns)], rows)


def class_table(report: dict) -> str:
    """Precision, recall, F1 and AUC of each class, of one view."""
    rows = [
        [one["label"], f"{one['n']:,}"]
        + [range_text(one[key]) for key in ("precision", "recall", "f1")]
        + [range_text(one["auc"], percent=False)]
        for one in report["per_class"]
    ]
    return table(["class, one view", "rows", "precision", "recall", "F1", "AUC"], rows)


def confused_text(report: dict) -> str:
    """The most frequent mistakes, worst first."""
    pairs = [f"{p['true']} as {p['predicted']} ({p['n']}, {100 * p['share']:.0f}%)" for p in report["most_confused"]]
    return ", ".join(pairs) or "nothing"


def calibration_text(report: dict) -> str:
    """Calibration errors before and after temperature, of one view and averaged."""
    bins, folds = report["calibration"]["bins"], report["calibration"]["folds"]
    sentences = [f"Expected calibration error over {bins} bins of equal mass, in percent:"]
    for name, key in (("one view", "single"), (f"{report['tta']} TTA", "tta")):
        one = report["calibration"][key]
        if one:
            errors = {kind: f"{100 * value:.1f}" for kind, value in one["ece"].items()}
            sentences.append(
                f"{name} {errors['at_1']} at temperature 1, {errors['stored']} as stored (temperature "
                f"{one['temperature_stored']:.3f}), **{errors['cross_fitted']}** cross-fitted over {folds} folds;"
            )
    return " ".join(sentences).rstrip(";") + "."


def conformal_text(report: dict) -> str:
    """How answers of one or more classes do."""
    one = report["conformal"]
    return (
        f"Asked to hold the label {100 * one['coverage_asked']:.0f}% of the time, answers hold it "
        f"{100 * one['coverage']:.1f}% (cross-fitted), with {one['mean_size']:.2f} classes on average; "
        f"{100 * one['share_of_one_class']:.0f}% of them are a single class."
    )


def training_text(used: dict, chosen: bool = True) -> str:
    """What the model was trained, selected and calibrated on; ``chosen`` says whether its own checkpoint was."""
    roles = {
        "train": "Trained on",
        "start": "Started from weights that were trained on",
        "teacher": "Taught by models that were trained on",
        "selection": "Checkpoint chosen on" if chosen else "Checkpoint of the weights it started from chosen on",
        "temperature": "Temperature fitted on",
        "member_weights": "Members' weights fitted on",
    }
    sentences = []
    for role, verb in roles.items():
        if role not in used:
            continue
        one = used[role]
        left_out = one.get("left_out_as_leaking", 0)
        without = f" ({left_out:,} rows that equal a validation picture were left out)" if left_out else ""
        # An ensemble whose members learned different labels records none.
        labels = f" with {LABEL_NAMES[one['labels']]}" if "labels" in one else ""
        about = different_pictures(one)
        count = f"{one['n']:,}" if about is None else f"about {round(about, -2):,} different"
        sentences.append(f"{verb} {count} pictures{labels}{without}.")
    return " ".join(sentences) or "Which pictures served for training is not recorded."


def robustness_table(record: dict) -> str:
    """Accuracy by corruption and strength, from training/robustness.py."""
    most = max(len(one["strengths"]) for one in record["corruptions"])
    rows = [["none", range_text(record["clean"]), *[""] * (most - 1)]]
    for one in record["corruptions"]:
        cells = [f"{s['strength']}: {100 * s['accuracy']['value']:.1f}" for s in one["strengths"]]
        rows.append([f"{one['name']} ({one['unit']})", *cells, *[""] * (most - len(cells))])
    drawn = f"{record['n']:,} of these rows, drawn by seed"
    scored_on = drawn if record.get("drawn_from", record["n"]) > record["n"] else f"the same {record['n']:,} rows"
    intro = f"Accuracy in percent on {scored_on}, one view, by strength of what was done to the pictures:"
    return f"{intro}\n\n{table(['corruption', *[''] * most], rows)}"


def attention_table(record: dict) -> str:
    """Share of attention on parts of the face, and deletion and insertion, from training/attention_report.py."""
    regions = list(record["area"])
    rows = [["area of the crop", *(f"{100 * record['area'][name]:.0f}" for name in regions), "", ""]]
    for one in record["methods"]:
        shares = [range_text(one["share"][name]) for name in regions]
        rows.append([one["name"], *shares, range_text(one["deletion"], False), range_text(one["insertion"], False)])
    areas = [range_text(record["random"][name], False) for name in ("deletion", "insertion")]
    rows.append(["random map", *[""] * len(regions), *areas])
    intro = (
        f"Share of each map on parts of the face in percent, over {record['n']:,} pictures. Deletion (lower is better) "
        "and insertion (higher is better) are areas under the probability of the answer while the most important "
        "pixels are blurred or restored first."
    )
    return f"{intro}\n\n{table(['', *regions, 'deletion', 'insertion'], rows)}"


def memory_text(record: dict) -> str:
    """What the memory holds and what it changes, from training/remember.py."""
    whole, *groups = record["validation"]
    names = [f"all {whole['n']:,}"]
    names += ["{n:,} at {nearest_cosine[0]:.2f} to {nearest_cosine[1]:.2f}".format(**one) for one in groups]
    rows = [
        [name, *(f"{100 * one[key]:.1f}" for key in ("classifier_accuracy", "accuracy"))]
        for name, one in zip(names, (whole, *groups), strict=True)
    ]
    return (
        f"Beside its weights the model remembers {record['rows']:,} training pictures: no pictures, but "
        f"{record['size']} bytes of what each looks like to the network, and what it is labelled "
        f"({LABEL_NAMES[record['labels']]}). The classifier's answer counts once, a remembered picture that looks the "
        f"same {record['weight']:g} times, and others less the more they differ (`layers_memory.py`).\n\n"
        "Part of what that gains is owed to near copies: of some photographs FER2013 holds several, which differ in "
        "crop, size or a few pixels, and only equal ones are left out of training. So here is what the memory changes "
        "by how near the nearest remembered picture is (cosine), in percent on validation, one view a picture. The "
        "nearest hold many such copies; for photographs from elsewhere, read the others.\n\n"
        f"{table(['validation pictures', 'classifier alone', 'with the memory'], rows)}\n\n"
        "`model.forget()` drops the memory. Before training on, call `model.unfit()`: memory and temperature fit these "
        "weights alone. `training/train.py` does so by itself.\n\n"
        f"Made from the same weights without it by `{record['command']}`"
    )
