"""Models against each other: ``python training/compare.py --predictions A.npz B.npz --output comparison.json``.

Takes the files that ``training/eval.py --predictions`` writes, on the same rows, and says how much each model's
accuracy and macro F1 differ from a reference, with paired 95% intervals: every draw holds the same rows for all.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from fer_hf.figures import comparison_figure, save_figure
from fer_hf.metrics import accuracy, class_scores
from training.arguments import positive
from training.card_text import range_text, table
from training.files import write_json, write_text
from training.intervals import RESAMPLES, SEED, bootstrap
from training.provenance import row_ids_sha256
from training.report import confusion_cells
from training.scoring import make_place

COMPARED = ("accuracy", "macro_f1")


def read_predictions(path: Path, tta: bool) -> dict[str, np.ndarray]:
    """``row_ids``, ``targets``, ``names`` and the ``predictions`` (N,) of one file.

    Raises ValueError where the file has no averaged probabilities and ``tta`` asks for them.
    """
    with np.load(path, allow_pickle=False) as arrays:
        key = "probabilities_tta" if tta else "probabilities"
        if key not in arrays:
            raise ValueError(f"{path} has no {key}; write it with training/eval.py --predictions" + (" --tta" * tta))
        rows = {name: arrays[name] for name in ("row_ids", "targets", "names")}
        return rows | {"predictions": arrays[key].argmax(axis=1)}


def in_class_order(rows: dict[str, np.ndarray], names: np.ndarray) -> dict[str, np.ndarray]:
    """The same rows with classes numbered as in ``names``; as they are where the model knows other classes."""
    if sorted(rows["names"].tolist()) != sorted(names.tolist()):
        return rows
    number = np.array([names.tolist().index(name) for name in rows["names"].tolist()])
    return rows | {"names": names, "targets": number[rows["targets"]], "predictions": number[rows["predictions"]]}


def check_same_rows(models: dict[str, dict[str, np.ndarray]]) -> None:
    """Raise ValueError unless all models were scored on the same rows, labels and classes, in the same order."""
    (first, reference), *others = models.items()
    for name, rows in others:
        for key in ("names", "row_ids", "targets"):
            if not np.array_equal(rows[key], reference[key]):
                raise ValueError(
                    f"{name} and {first} differ in {key}: score both with the same --data, --split and --labels"
                )


def compare(models: dict[str, dict[str, np.ndarray]], reference: str, resamples: int, seed: int) -> dict[str, dict]:
    """By model: ``accuracy`` and ``macro_f1``, and under ``difference`` how they differ from the reference's."""
    classes = len(models[reference]["names"])
    cells = {name: confusion_cells(rows["targets"], rows["predictions"], classes) for name, rows in models.items()}

    def of_draws(weights: np.ndarray) -> dict[str, np.ndarray]:
        figures = {}
        for name, cell in cells.items():
            confusion = (weights @ cell).reshape(-1, classes, classes)
            figures[name, "accuracy"] = accuracy(confusion)
            figures[name, "macro_f1"] = class_scores(confusion).average("f1", "macro")
        differences = {
            (name, key, "difference"): figures[name, key] - figures[reference, key]
            for name in cells
            for key in COMPARED
        }
        return figures | differences

    found = bootstrap(of_draws, len(models[reference]["targets"]), resamples, seed)
    return {
        name: {key: found[name, key] for key in COMPARED}
        | {"difference": {key: found[name, key, "difference"] for key in COMPARED}}
        for name in models
    }


def comparison_table(models: dict[str, dict], reference: str) -> str:
    """A Markdown table, best accuracy first."""
    header, rows = ["model"], [[name] for name in models]
    for key, title in zip(COMPARED, ("accuracy, %", "macro F1, %"), strict=True):
        header += [title, f"against {reference}"]
        for row, (name, one) in zip(rows, models.items(), strict=True):
            row += [range_text(one[key]), "–" if name == reference else range_text(one["difference"][key])]
    return table(header, rows)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", required=True, nargs="+", type=Path, help=".npz files; named as their models")
    parser.add_argument("--reference", help="the model to compare with (default: the first)")
    parser.add_argument("--tta", action="store_true", help="compare the averages over views")
    parser.add_argument("--output", required=True, type=Path, help="comparison.json; .md and .png are put beside it")
    parser.add_argument("--resamples", type=positive, default=RESAMPLES)
    parser.add_argument("--seed", type=int, default=SEED)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    make_place(arguments.output)
    models = {path.stem: read_predictions(path, arguments.tta) for path in arguments.predictions}
    reference = arguments.reference or next(iter(models))
    if len(models) < 2 or len(models) < len(arguments.predictions) or reference not in models:
        raise ValueError(f"give at least two files of different names, among them {reference}.npz; got {list(models)}")
    names = models[reference]["names"]
    models = {name: in_class_order(rows, names) for name, rows in models.items()}
    check_same_rows(models)
    found = compare(models, reference, arguments.resamples, arguments.seed)
    found = dict(sorted(found.items(), key=lambda item: -item[1]["accuracy"]["value"]))
    rows = next(iter(models.values()))
    record = {
        "reference": reference,
        "tta": arguments.tta,
        "n": len(rows["targets"]),
        "row_ids_sha256": row_ids_sha256(tuple(rows["row_ids"].tolist())),
        "resamples": arguments.resamples,
        "seed": arguments.seed,
        "models": found,
    }
    write_json(arguments.output, record)
    text = comparison_table(found, reference)
    write_text(arguments.output.with_suffix(".md"), text + "\n")
    others = {name: one["difference"]["accuracy"] for name, one in found.items() if name != reference}
    figure = comparison_figure(others, f"Accuracy against {reference}", "percentage points, paired 95% interval", True)
    save_figure(figure, arguments.output.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"compare.py: {error}")
