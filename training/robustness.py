"""Accuracy by corruption and strength: ``python training/robustness.py --model M --data D --output robustness.json``.

Blur, noise, dark, contrast, rotation, JPEG, face size, and bars over eyes or mouth where the model's processor has a
face template. A figure of the same name is put beside the record.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from fer_hf.data.loaders import ArraySplit
from fer_hf.figures import save_figure, strength_figure
from fer_hf.metrics import accuracy, class_scores
from training.arguments import positive
from training.corruptions import CORRUPTIONS, Corruption
from training.files import write_json
from training.intervals import bootstrap
from training.report import confusion_cells
from training.scoring import Loaded, add_split_arguments, drawn_rows, load, make_place, open_split, record_head
from training.views import View, predict_views


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or Hub id")
    parser.add_argument("--rows", type=positive, help="so many pictures, drawn by seed; all where absent")
    parser.add_argument("--output", required=True, type=Path, help="robustness.json")
    add_split_arguments(parser)
    return parser.parse_args(argv)


def figures(loaded: Loaded, split: ArraySplit, images: torch.Tensor, resamples: int, seed: int) -> dict[str, dict]:
    """``accuracy`` and ``macro_f1`` of one view of ``images``, which stand for the split's pictures."""
    logits = predict_views(loaded.model, images, loaded.processor.normalize_uint8, (View(),))[:, 0]
    targets, classes = split.labels.numpy(), len(loaded.class_names)
    cells = confusion_cells(targets, logits.argmax(1).numpy(), classes)

    def of_draws(weights: np.ndarray) -> dict[str, np.ndarray]:
        confusion = (weights @ cells).reshape(-1, classes, classes)
        return {"accuracy": accuracy(confusion), "macro_f1": class_scores(confusion).average("f1", "macro")}

    return bootstrap(of_draws, len(targets), resamples, seed)


def measure(loaded: Loaded, split: ArraySplit, corruption: Corruption, resamples: int, seed: int) -> dict:
    """What one corruption does at each of its strengths."""
    template = loaded.processor.face_template
    return {
        "name": corruption.name,
        "unit": corruption.unit,
        "strengths": [
            {"strength": f"{strength:g}"}
            | figures(loaded, split, corruption(split.images, strength, template), resamples, seed)
            for strength in corruption.strengths
        ],
    }


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    make_place(arguments.output)
    loaded = load(arguments.model, arguments.device)
    whole, _ = open_split(loaded, arguments)
    split = drawn_rows(whole, arguments.rows, arguments.seed)
    usable = [one for one in CORRUPTIONS if loaded.processor.face_template is not None or not one.needs_template]
    clean = figures(loaded, split, split.images, arguments.resamples, arguments.seed)
    record = record_head(loaded, split, arguments) | {
        "drawn_from": len(whole),
        "clean": clean["accuracy"],
        "clean_macro_f1": clean["macro_f1"],
        "corruptions": [measure(loaded, split, one, arguments.resamples, arguments.seed) for one in usable],
    }
    write_json(arguments.output, record)
    title = f"{loaded.name}: accuracy under corruption"
    save_figure(strength_figure(record["clean"], record["corruptions"], title), arguments.output.with_suffix(".png"))
    for one in record["corruptions"]:
        shown = ", ".join(f"{s['strength']}: {s['accuracy']['value']:.3f}" for s in one["strengths"])
        print(f"{one['name']} ({one['unit']}): {shown}; clean {record['clean']['value']:.3f}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"robustness.py: {error}")
