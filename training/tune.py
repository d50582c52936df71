"""Search recipe keys: ``python training/tune.py --recipe R.yaml --data DATA --output DIR --search KEY=RANGE ...``.

A range is ``low:high`` (uniform; whole numbers stay whole), ``log:low:high`` or ``choice:a,b,c``. Every trial is a run
of its own in the output folder and a line in ``trials.jsonl``; run the command again to go on where it was stopped.
"""

import argparse
import json
import sys
from pathlib import Path

import optuna
import yaml
from accelerate.state import AcceleratorState

from training import train
from training.arguments import positive
from training.checkpoints import CheckpointError
from training.config import load_recipe
from training.loop import TrainingDiverged

_OVER = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)  # what diverged is pruned


def suggest(trial: optuna.Trial, key: str, text: str):
    """A value for a recipe key from a range as the command line writes it.

    Raises ValueError that names the key and the three forms a range can take.
    """
    try:
        kind, _, rest = text.partition(":")
        if kind == "choice":
            return trial.suggest_categorical(key, yaml.safe_load(f"[{rest}]"))
        bounds = rest if kind == "log" else text
        low, high = (float(value) for value in bounds.split(":"))
        if "." not in bounds and "e" not in bounds.lower():
            return trial.suggest_int(key, int(low), int(high), log=kind == "log")
        return trial.suggest_float(key, low, high, log=kind == "log")
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"--search {key}={text}: {str(error).splitlines()[0]}; write low:high, log:low:high or choice:a,b,c, such "
            "as optimizer.lr=log:1e-3:1e-1"
        ) from error


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data", required=True, nargs="+", action="extend")
    parser.add_argument("--votes")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--search", nargs="+", action="extend", required=True, metavar="KEY=RANGE")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="recipe keys fixed for every trial"
    )
    parser.add_argument("--trials", type=positive, default=20, help="in all, those of earlier calls included")
    parser.add_argument("--seed", type=int, default=0, help="of the search; a recipe has its own")
    return parser.parse_args(argv)


def run_trial(arguments: argparse.Namespace, trial: optuna.Trial) -> float:
    """Train once with suggested values; the best validation score, higher is better.

    Raises optuna.TrialPruned where it diverges, which ends this trial and not the search.
    """
    values = {}
    for item in arguments.search:
        key, found, text = item.partition("=")
        if not found:
            raise ValueError(f"--search {item}: write KEY=RANGE, such as optimizer.lr=log:1e-3:1e-1")
        values[key] = suggest(trial, key, text)
    # The folder is named by the values, so a trial that was killed resumes from its own checkpoint.
    name = "_".join(
        f"{key.rpartition('.')[2]}={value:.6g}" if isinstance(value, float) else f"{key.rpartition('.')[2]}={value}"
        for key, value in values.items()
    )
    command = ["--recipe", arguments.recipe, "--data", *arguments.data, "--output", str(arguments.output / name)]
    command += ["--votes", arguments.votes] if arguments.votes else []
    overrides = [*arguments.set, *(f"{key}={json.dumps(value)}" for key, value in values.items())]
    AcceleratorState._reset_state()  # it holds the precision of the trial before, which this one may not have
    try:
        return train.main([*command, "--tracker", "none", "--set", *overrides]).best_score
    except TrainingDiverged as error:
        raise optuna.TrialPruned(str(error)) from error


def main(argv: list[str] | None = None) -> optuna.Study:
    """Run trials until there are as many as asked for; returns the study."""
    arguments = parse_arguments(argv)
    if load_recipe(arguments.recipe, arguments.set).select == "last":
        raise ValueError(
            "select: last watches no figure, so no trial is better than another; add --set select=accuracy, or "
            "macro_f1, or loss"
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="fer_hf",
        storage=f"sqlite:///{arguments.output / 'study.db'}",
        direction="maximize",
        load_if_exists=True,
    )
    # A sampler starts its draws anew in every call: seeded alike, it would repeat the trials there are.
    study.sampler = optuna.samplers.TPESampler(seed=arguments.seed + len(study.get_trials(deepcopy=False)))
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params, skip_if_exists=False)
    done = len(study.get_trials(deepcopy=False, states=_OVER))

    def record(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        with (arguments.output / "trials.jsonl").open("a") as file:
            file.write(json.dumps({"trial": trial.number, "score": trial.value, **trial.params}) + "\n")
        score = "diverged" if trial.value is None else f"{trial.value:.4f}"
        print(f"trial {trial.number}: {score} with {trial.params}; best so far {best(study)}")

    study.optimize(
        lambda trial: run_trial(arguments, trial), n_trials=max(arguments.trials - done, 0), callbacks=[record]
    )
    if best(study) is None:
        raise ValueError(
            f"all {arguments.trials} trials diverged; search lower rates, such as optimizer.lr=log:1e-5:1e-3"
        )
    print(f"best of {arguments.trials}: {best(study)} with {study.best_params}")
    return study


def best(study: optuna.Study) -> str | None:
    """The best score so far; None where every trial has diverged."""
    completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return f"{study.best_value:.4f}" if completed else None


if __name__ == "__main__":
    try:
        main()
    except (ValueError, TrainingDiverged, CheckpointError) as error:
        sys.exit(f"tune.py: {error}")
