"""Score runs of one recipe that differ in their seed alone, and write each one's figures, their mean and deviation.

    python training/seeds.py --runs runs/a runs/b runs/c --data DATA --labels fer2013 --tta ten --output seeds.json

In a model's folder the file makes cards and tables show the mean, whichever of the runs is shipped there.
"""

import argparse
import statistics
import sys
from pathlib import Path

import yaml

from training.files import write_json
from training.intervals import RESAMPLES
from training.provenance import FITTED
from training.report import build_report
from training.scoring import Loaded, add_split_arguments, load, make_place, open_split, record_head, score, source_text
from training.views import BATCH

SHOWN = ("accuracy", "macro_f1", "auc")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, nargs="+", type=Path, help="outputs of training/train.py")
    parser.add_argument("--tta", nargs="?", const="flip", metavar="VIEWS", help="also average views, as eval.py does")
    parser.add_argument("--output", required=True, type=Path, help="seeds.json")
    add_split_arguments(parser)
    return parser.parse_args(argv)


def read_recipes(runs: list[Path]) -> list[dict]:
    """The effective recipe of each run. Raises ValueError where they differ in more, or in less, than the seed."""
    recipes = []
    for run in runs:
        file = run / "best" / "recipe.yaml"
        if not file.is_file():
            raise ValueError(f"{run} holds no finished epoch of training/train.py: {file} is missing")
        recipes.append(yaml.safe_load(file.read_text(encoding="utf-8")))
    first = recipes[0]
    for run, recipe in zip(runs, recipes, strict=True):
        other = sorted(key for key in {*first, *recipe} - {"seed"} if first.get(key) != recipe.get(key))
        if other:
            raise ValueError(f"{run} differs from {runs[0]} in {', '.join(other)}; give runs that differ in their seed")
    seeds = [recipe["seed"] for recipe in recipes]
    if len({*seeds}) < max(len(seeds), 2):
        raise ValueError(f"the runs have the seeds {', '.join(map(str, seeds))}; give two or more different ones")
    return recipes


def score_run(loaded: Loaded, arguments: argparse.Namespace) -> dict:
    """The figures of one run's best model, its temperature cross-fitted."""
    split, _ = open_split(loaded, arguments)
    scored = score(loaded, split, arguments.tta, BATCH, FITTED[:1])
    report = build_report(scored, resamples=arguments.resamples, seed=arguments.seed)
    return record_head(loaded, split, arguments) | {
        view: None if metrics is None else figures(metrics, report["calibration"][calibrated])
        for view, metrics, calibrated in (
            ("one_view", report["metrics"], "single"),
            ("views_averaged", report["metrics_tta"], "tta"),
        )
    }


def figures(metrics: dict[str, dict], calibration: dict) -> dict[str, float]:
    """What is shown of a run: accuracy, macro-F1, AUC and ECE at a cross-fitted temperature."""
    return {key: metrics[key]["value"] for key in SHOWN} | {"ece": calibration["ece"]["cross_fitted"]}


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    return {"mean": round(statistics.mean(values), 6), "deviation": round(statistics.stdev(values), 6)}


def score_runs(arguments: argparse.Namespace) -> dict:
    """The record that goes into seeds.json."""
    recipes = read_recipes(arguments.runs)
    scored = [score_run(load(str(run / "best"), arguments.device), arguments) for run in arguments.runs]
    shared = ("split", "labels", "n", "data_sha256")
    resamples = f" --resamples {arguments.resamples}" if arguments.resamples != RESAMPLES else ""
    return {
        "recipe": recipes[0]["name"],
        **{key: scored[0][key] for key in shared},
        "tta": arguments.tta,
        "command": (
            f"python training/seeds.py --runs RUNS --data DATA{source_text(arguments)}"
            f" --split {arguments.split} --labels {arguments.labels}"
            f"{f' --tta {arguments.tta}' if arguments.tta else ''}{resamples} --output {arguments.output.name}"
        ),
        "runs": [
            {"seed": recipe["seed"]} | {key: one[key] for key in ("weights_sha256", "one_view", "views_averaged")}
            for recipe, one in zip(recipes, scored, strict=True)
        ],
        "over_runs": {
            view: {key: spread([one[view][key] for one in scored]) for key in (*SHOWN, "ece")}
            for view in ("one_view", "views_averaged")
            if scored[0][view]
        },
    }


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    make_place(arguments.output)
    record = score_runs(arguments)
    write_json(arguments.output, record)
    view, over = next(reversed(record["over_runs"].items()))
    texts = [f"{key.replace('_', ' ')} {one['mean']:.4f} ± {one['deviation']:.4f}" for key, one in over.items()]
    print(f"{record['recipe']}, {len(record['runs'])} seeds, {view.replace('_', ' ')}: {', '.join(texts)}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"seeds.py: {error}")
