"""Train a recipe once a fold and score what each model says of the fold it has not seen, all rows in one report.

    python training/cross_validate.py --recipe R.yaml --data DATA --output DIR --report folds.json

The recipe names ``data.source.folds`` and ``select: last``: a checkpoint chosen on the fold that it is scored on would
flatter. Run it again with the same output to resume.
"""

import argparse
import shlex
import sys
from pathlib import Path

import torch

from fer_hf.data.loaders import ArraySplit, load_arrays
from fer_hf.data.sources import load_source
from fer_hf.hub import ModelError
from training import train
from training.arguments import positive
from training.checkpoints import CheckpointError
from training.config import Recipe, load_recipe
from training.files import write_json
from training.intervals import RESAMPLES, SEED
from training.loop import TrainingDiverged
from training.provenance import FITTED, row_ids_sha256
from training.report import Scored, build_report
from training.scoring import LABELS, load, make_place, placeless, placeless_pair, score
from training.views import BATCH


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="a YAML file with data.source.folds and select: last")
    parser.add_argument("--data", required=True, nargs="+", action="extend", help="what the folds are of")
    parser.add_argument("--output", required=True, type=Path, help="folder for a run of each fold")
    parser.add_argument("--report", required=True, type=Path, help="where the figures over all rows go")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="recipe keys to override"
    )
    parser.add_argument("--tta", nargs="?", const="flip", metavar="VIEWS", help="also average views, as eval.py does")
    parser.add_argument("--resamples", type=positive, default=RESAMPLES, help="bootstrap draws (default: %(default)s)")
    return parser.parse_args(argv)


def check(recipe: Recipe) -> None:
    """Raise ValueError where a recipe's figures over folds would not be what they seem."""
    if recipe.data.source.folds < 2:
        raise ValueError(f"{recipe.name} has no folds; set data.source.folds, such as 5")
    if recipe.select != "last":
        raise ValueError(f"{recipe.name} selects by {recipe.select} on the fold it is scored on; set select: last")
    if recipe.data.validation_labels not in LABELS:
        raise ValueError(f"data.validation_labels should be one of {', '.join(LABELS)} to be right or wrong")


def run_fold(arguments: argparse.Namespace, fold: int) -> Scored:
    """What the model of one fold says of it, trained first unless that is done."""
    changes, output = [*arguments.set, f"data.source.fold={fold}"], arguments.output / f"fold_{fold}"
    command = ["--recipe", arguments.recipe, "--data", *arguments.data, "--output", str(output), "--tracker", "none"]
    train.main([*command, "--set", *changes])
    recipe = load_recipe(arguments.recipe, changes)
    loaded = load(str(output / "best"), "cuda" if torch.cuda.is_available() else "cpu")
    rows = load_source(arguments.data, recipe.data.source)["validation"]
    split = load_arrays(rows, loaded.processor, labels=recipe.data.validation_labels, names=recipe.data.names)
    return score(loaded, split, arguments.tta, BATCH)


def joined(folds: list[Scored]) -> Scored:
    """Every row of every fold as the model sees it that did not learn from it; the temperature is cross-fitted."""
    first = folds[0]
    return Scored(
        ArraySplit.concatenate([fold.split for fold in folds]),
        first.names,
        torch.cat([torch.from_numpy(fold.member_logs) for fold in folds]).numpy(),
        first.tta,
        1.0,
        first.weights,
        FITTED[:1],
    )


def cross_validate(arguments: argparse.Namespace) -> dict:
    """Train and score every fold, write the report, and return it."""
    recipe = load_recipe(arguments.recipe, arguments.set)
    check(recipe)
    make_place(arguments.report)
    scored = joined([run_fold(arguments, fold) for fold in range(recipe.data.source.folds)])
    changes = f" --set {shlex.join(map(placeless_pair, arguments.set))}" if arguments.set else ""
    start = recipe.model.start_from
    tta = f" --tta {arguments.tta}" if arguments.tta else ""
    report = {
        "recipe": recipe.name,
        "folds": recipe.data.source.folds,
        "labels": recipe.data.validation_labels,
        "n": len(scored.split),
        "tta": arguments.tta,
        "start_from": start and placeless(start),
        "command": (
            f"python training/cross_validate.py --recipe {placeless(arguments.recipe)} --data DATA --output RUNS"
            f" --report {arguments.report.name}{tta}{changes}"
        ),
        "data_sha256": scored.split.sha256(),
        "row_ids_sha256": row_ids_sha256(scored.split.row_ids),
        "classes": list(scored.names),
    } | build_report(scored, resamples=arguments.resamples, seed=SEED)
    write_json(arguments.report, report)
    return report


def main(argv: list[str] | None = None) -> None:
    """Print the figures over all folds."""
    report = cross_validate(parse_arguments(argv))
    figures = report["metrics_tta"] or report["metrics"]
    texts = [
        f"{name.replace('_', ' ')} {figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"
        for name, figure in figures.items()
        if name in ("accuracy", "macro_f1", "weighted_f1")
    ]
    print(f"{report['recipe']}, {report['folds']} folds ({report['n']:,} rows): {', '.join(texts)}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ModelError, TrainingDiverged, CheckpointError) as error:
        sys.exit(f"cross_validate.py: {error}")
