"""Score models on a split: ``python training/eval.py --model M --data D --labels L --tta --output report.json``.

Writes the report and, beside it, confusion.png, reliability.png and per_class.png. Several models need a folder as
``--output``, which gets a folder for each.
"""

import argparse
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import fer_hf
from fer_hf.data.loaders import ArraySplit, load_arrays
from fer_hf.figures import confusion_figure, per_class_figure, reliability_figure, save_figure
from training.calibration import COVERAGE, conformal_threshold, fit_temperature, probabilities_at
from training.cost import measure_cost
from training.intervals import RESAMPLES, SEED
from training.provenance import ROLES, overlap, read_json, read_used, row_ids_sha256, write_json, write_used
from training.report import Scored, build_report
from training.scoring import LABELS, Loaded, load, load_split, score

SAME_DATA = 0.5  # share of pictures from which on a split counts as one the model has seen
_VERSIONED = ("torch", "transformers", "timm", "datasets", "numpy")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, nargs="+", help="model folders or Hub ids")
    parser.add_argument("--data", required=True, help="folder of parquet, fer2013.csv, class folders or a Hub id")
    parser.add_argument("--votes", help="fer2013new.csv, where the data carries no FER+ votes")
    parser.add_argument("--split", default="validation", help="train, validation or test (default: %(default)s)")
    parser.add_argument("--labels", default="fer2013", choices=LABELS, help="what is right (default: %(default)s)")
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
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


def evaluate(loaded: Loaded, arguments: argparse.Namespace) -> dict:
    """Score one model, write its report, figures and predictions, and return the report."""
    start = time.perf_counter()
    source = load_split(arguments.data, arguments.split, arguments.votes, len(loaded.class_names))
    split = load_arrays(source, loaded.processor, labels=arguments.labels, names=loaded.class_names)
    check_test(loaded, arguments.split, seen(loaded.folder, split))
    if arguments.fit_temperature:
        store_calibration(loaded, split, arguments.labels, arguments.split, arguments.batch_size)
    scored = score(loaded, split, arguments.tta, arguments.batch_size)
    report = head(loaded, split, arguments) | {"rows_left_out": len(source) - len(split)}
    report |= build_report(scored, resamples=arguments.resamples, seed=arguments.seed)
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


def store_calibration(loaded: Loaded, split: ArraySplit, labels: str, split_name: str, batch_size: int) -> None:
    """Fit temperature and answer sets on a split, for the plain picture, and write them into the model's folder."""
    train_share = seen(loaded.folder, split)["train"]
    if split_name == "test" or (train_share is not None and train_share >= SAME_DATA):
        raise ValueError(f"a temperature fitted on the {split_name} split would not hold; fit it on validation")
    if not (loaded.folder / "config.json").is_file() or loaded.name.count("/"):
        raise ValueError(f"{loaded.name} is no local folder; download the model to store a temperature in it")
    scored = score(loaded, split, None, batch_size)
    temperature = round(fit_temperature(scored.logits(False), scored.targets), 6)
    threshold = conformal_threshold(probabilities_at(scored.logits(False), temperature), scored.targets)
    stored = {
        "temperature": temperature,
        "conformal_threshold": round(threshold, 6),
        "conformal_coverage": COVERAGE,
    }
    write_json(loaded.folder / "config.json", read_json(loaded.folder / "config.json") | stored)
    write_used(loaded.folder, "temperature", split, labels=labels)
    for key, value in stored.items():
        setattr(loaded.model.config, key, value)


def head(loaded: Loaded, split: ArraySplit, arguments: argparse.Namespace) -> dict:
    """What was scored on what, and how to do it again."""
    return {
        "model": loaded.name,
        "model_type": loaded.model.config.model_type,
        "split": arguments.split,
        "labels": arguments.labels,
        "n": len(split),
        "n_distinct": len(set(split.pixel_sha256)),
        "tta": arguments.tta,
        "command": command(loaded, arguments),
        "data_sha256": split.sha256(),
        "row_ids_sha256": row_ids_sha256(split.row_ids),
        "weights_sha256": loaded.weights_sha256,
        "classes": list(loaded.class_names),
        "seen": seen(loaded.folder, split),
        "versions": {"fer_hf": fer_hf.__version__, "python": platform.python_version()}
        | {name: version(name) for name in _VERSIONED},
    }


def command(loaded: Loaded, arguments: argparse.Namespace) -> str:
    """The command line that gives this report again, with placeholders for places on this machine."""
    local = loaded.folder.name == loaded.name
    parts = ["python training/eval.py --model", f"model_cards/{loaded.name}" if local else loaded.name, "--data DATA"]
    parts += ["--votes VOTES"] if arguments.votes else []
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
    for name_or_path in arguments.model:
        print(summary(evaluate(load(name_or_path, arguments.device), arguments)))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"eval.py: {error}")
