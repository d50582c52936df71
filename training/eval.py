"""Score models on a split: ``python training/eval.py --model M --data D --labels L --tta --output report.json``.

Writes the report and, beside it, confusion.png, reliability.png and per_class.png. Several models need a folder as
``--output``, which gets a folder for each.
"""

import argparse
import platform
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np

import fer_hf
from fer_hf.data.loaders import ArraySplit
from fer_hf.figures import confusion_figure, per_class_figure, reliability_figure, save_figure
from fer_hf.model_folder import settings_file
from training.arguments import positive
from training.calibration import (
    COVERAGE,
    conformal_threshold,
    fit_member_weights,
    fit_temperature,
    mix,
    probabilities_at,
)
from training.cost import measure_cost
from training.files import read_json, write_json
from training.intervals import RESAMPLES, SEED
from training.members import against_members
from training.provenance import FITTED, ROLES, overlap, read_used, write_used
from training.report import Scored, build_report
from training.scoring import (
    Loaded,
    add_split_arguments,
    load,
    model_name,
    open_split,
    record_head,
    score,
    source_text,
)
from training.views import BATCH

SAME_DATA = 0.5  # share of pictures from which on a split counts as one the model has seen
_VERSIONED = ("torch", "transformers", "timm", "datasets", "numpy")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, nargs="+", help="model folders or Hub ids")
    parser.add_argument(
        "--tta", nargs="?", const="flip", metavar="VIEWS", help="also average views: flip (default), five, ten or steps"
    )
    parser.add_argument("--output", required=True, type=Path, help="report.json, or a folder for several models")
    parser.add_argument("--predictions", type=Path, help="also write probabilities of every row: .npz, or a folder")
    parser.add_argument(
        "--fit-temperature",
        action="store_true",
        help="first fit temperature and answer sets on this split and store them in the model's config.json",
    )
    parser.add_argument(
        "--fit-weights",
        action="store_true",
        help="of an ensemble: the same, and before it the weights of the members",
    )
    add_split_arguments(parser)
    parser.add_argument("--batch-size", type=positive, default=BATCH)
    return parser.parse_args(argv)


def evaluate(loaded: Loaded, arguments: argparse.Namespace) -> dict:
    """Score one model, write its report, figures and predictions, and return the report."""
    start = time.perf_counter()
    split, left_out = open_split(loaded, arguments)
    check_test(loaded, arguments.split, seen(loaded.folder, split))
    if arguments.fit_temperature or arguments.fit_weights:
        store_calibration(loaded, split, arguments)
    shares = seen(loaded.folder, split)
    if arguments.split != "train" and (shares["train"] or 0) >= SAME_DATA:
        print(f"{loaded.name} was trained on {shares['train']:.0%} of these pictures", file=sys.stderr)
    fitted_here = tuple(role for role in FITTED if (shares[role] or 0) >= SAME_DATA)
    scored = score(loaded, split, arguments.tta, arguments.batch_size, fitted_here)
    report = head(loaded, split, arguments) | {"rows_left_out": left_out}
    report |= build_report(scored, resamples=arguments.resamples, seed=arguments.seed)
    if len(scored.weights) > 1:
        names = loaded.model.member_names
        report |= {"members": against_members(scored, names, arguments.resamples, arguments.seed)}
    report |= {"cost": measure_cost(loaded.model, loaded.folder)}
    report |= {"seconds": round(time.perf_counter() - start, 1)}
    path = report_path(loaded.name, arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    save_figures(report, path)
    if arguments.predictions:
        save_predictions(scored, predictions_path(loaded.name, arguments))
    return report


def seen(folder: Path, split: ArraySplit) -> dict[str, float | None]:
    """Share of the split's pictures that served each role; None where the folder does not record it."""
    used = read_used(folder)
    return {role: overlap(used[role], split) if role in used else None for role in ROLES}


def check_test(loaded: Loaded, split_name: str, shares: dict[str, float | None]) -> None:
    """Raise ValueError where a split called test is one the model was trained, selected or calibrated on."""
    for role, share in shares.items():
        if split_name == "test" and share is not None and share >= SAME_DATA:
            raise ValueError(
                f"{share:.0%} of this split's pictures served {loaded.name} for {role}, so it is no test; "
                "give pictures the model has not seen, or say --split validation"
            )


def store_calibration(loaded: Loaded, split: ArraySplit, arguments: argparse.Namespace) -> None:
    """Fit temperature and answer sets, and member weights if asked, on the plain pictures of a split; store them."""
    train_share = seen(loaded.folder, split)["train"]
    if arguments.split == "test" or (train_share is not None and train_share >= SAME_DATA):
        raise ValueError(f"a temperature fitted on the {arguments.split} split would not hold; fit it on validation")
    file = settings_file(loaded.folder)
    if not file.is_file() or loaded.name.count("/"):
        raise ValueError(f"{loaded.name} is no local folder; download the model to store a temperature in it")
    scored = score(loaded, split, None, arguments.batch_size)
    logs, targets, stored = scored.member_logs[:, 0], scored.targets, {}
    if arguments.fit_weights:
        if len(scored.weights) < 2:
            raise ValueError(f"{loaded.name} is no ensemble, so it has no member weights; use --fit-temperature")
        stored["weights"] = fit_member_weights(logs, targets).round(6).tolist()
    logits = mix(logs, stored.get("weights", scored.weights))
    stored["temperature"] = round(fit_temperature(logits, targets), 6)
    threshold = conformal_threshold(probabilities_at(logits, stored["temperature"]), targets)
    stored |= {"conformal_threshold": round(threshold, 6), "conformal_coverage": COVERAGE}
    # The record first: a command that is broken off between the two leaves no figures that these rows gave unsaid.
    for role in FITTED if arguments.fit_weights else FITTED[:1]:
        write_used(loaded.folder, role, split, labels=arguments.labels)
    write_json(file, read_json(file) | stored)
    for key, value in stored.items():
        setattr(loaded.model.config, key, value)


def head(loaded: Loaded, split: ArraySplit, arguments: argparse.Namespace) -> dict:
    """What was scored on what, and how to do it again."""
    return record_head(loaded, split, arguments) | {
        "model_type": loaded.model.config.model_type,
        "n_distinct": len(set(split.pixel_sha256)),
        "tta": arguments.tta,
        "command": command(loaded, arguments),
        "classes": list(loaded.class_names),
        "seen": seen(loaded.folder, split),
        "versions": {"fer_hf": fer_hf.__version__, "python": platform.python_version()}
        | {name: version(name) for name in _VERSIONED},
    }


def command(loaded: Loaded, arguments: argparse.Namespace) -> str:
    """The command line that gives this report again, with placeholders for places on this machine."""
    local = loaded.folder.name == loaded.name
    parts = ["python training/eval.py --model", f"model_cards/{loaded.name}" if local else loaded.name, "--data DATA"]
    parts[-1] += source_text(arguments)
    parts += [f"--split {arguments.split} --labels {arguments.labels}"]
    parts += [f"--tta {arguments.tta}"] if arguments.tta else []
    parts += [f"--resamples {arguments.resamples}"] if arguments.resamples != RESAMPLES else []
    parts += [f"--seed {arguments.seed}"] if arguments.seed != SEED else []
    return " ".join([*parts, "--output", report_path(loaded.name, arguments).name])


def report_path(name: str, arguments: argparse.Namespace) -> Path:
    """Where a model's report goes: ``--output`` itself for one model, a folder of its own in it for several."""
    if len(arguments.model) == 1:
        return arguments.output / "report.json" if arguments.output.is_dir() else arguments.output
    return arguments.output / name.replace("/", "--") / "report.json"


def predictions_path(name: str, arguments: argparse.Namespace) -> Path:
    """Where a model's predictions go: ``--predictions`` itself where it is an .npz, else a file of its own in it."""
    if len(arguments.model) == 1 and arguments.predictions.suffix == ".npz":
        return arguments.predictions
    return arguments.predictions / f"{name.replace('/', '--')}.npz"


def save_figures(report: dict, path: Path) -> None:
    """confusion, reliability and per_class beside a report; what follows ``report`` in its name follows theirs."""
    suffix, title = path.stem.removeprefix("report"), f"{report['model']}: {report['split']}, {report['labels']} labels"
    reliability = report["calibration"]["single"]
    names = {"at_1": "temperature 1", "cross_fitted": "temperature cross-fitted"}
    curves = {
        f"{text}, ECE {reliability['ece'][key]:.3f}": reliability["reliability"][key] for key, text in names.items()
    }
    figures = {
        "confusion": confusion_figure(np.array(report["confusion"]), report["classes"], title),
        "reliability": reliability_figure(curves, title),
        "per_class": per_class_figure(report["per_class"], title),
    }
    for name, figure in figures.items():
        save_figure(figure, path.parent / f"{name}{suffix}.png")


def save_predictions(scored: Scored, path: Path) -> None:
    """Write row ids, labels and probabilities of every row, which paired comparisons need, as one .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"probabilities": scored.probabilities().astype(np.float32)}
    if scored.tta is not None:
        arrays["probabilities_tta"] = scored.probabilities(True).astype(np.float32)
    part = path.with_name(f".{path.name}.part.npz")
    np.savez_compressed(
        part, row_ids=np.array(scored.split.row_ids), targets=scored.targets, names=np.array(scored.names), **arrays
    )
    part.replace(path)


def summary(report: dict) -> str:
    """One line for the terminal."""
    figures = report["metrics_tta"] or report["metrics"]
    shown = {name: figures[name] for name in ("accuracy", "macro_f1", "auc")}
    texts = [
        f"{name.replace('_', ' ')} {f['value']:.4f} [{f['low']:.4f}, {f['high']:.4f}]"
        for name, f in shown.items()
        if f["value"] is not None
    ]
    ece = report["calibration"]["single"]["ece"]
    return (
        f"{report['model']}, {report['split']} ({report['n']:,} rows, {report['labels']}"
        f"{', TTA ' + report['tta'] if report['tta'] else ''}): {', '.join(texts)}; "
        f"ECE {ece['at_1']:.3f} at temperature 1, {ece['cross_fitted']:.3f} cross-fitted"
    )


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if len(arguments.model) > 1 and arguments.output.suffix:
        raise ValueError(f"{len(arguments.model)} models need a folder as --output; {arguments.output} was given")
    twice = [name for name, times in Counter(map(model_name, arguments.model)).items() if times > 1]
    if twice:
        raise ValueError(
            f"several models are called {', '.join(twice)}, and each report would overwrite the one before; rename "
            "their folders, or score them one at a time"
        )
    for name_or_path in arguments.model:
        print(summary(evaluate(load(name_or_path, arguments.device), arguments)))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"eval.py: {error}")
