"""Train one recipe: ``accelerate launch training/train.py --recipe R.yaml --data DATA --output DIR``.

Run it again with the same output to resume; a finished run says so.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed

import fer_hf
from fer_hf.data.loaders import ArraySplit, load_arrays, rows_without
from fer_hf.data.sources import load_source
from fer_hf.hub import save_portable
from fer_hf.labels import id2label, label2id, vocabulary
from fer_hf.models.image_processing_fer import FerImageProcessor
from training.checkpoints import CheckpointError
from training.config import Recipe, dump_recipe, load_recipe
from training.engine import pick_precision
from training.loop import Run, TrainingDiverged


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="a YAML file under training/recipes/")
    parser.add_argument("--data", required=True, help="folder of parquet, fer2013.csv, class folders or a Hub id")
    parser.add_argument("--votes", help="fer2013new.csv, where the data carries no FER+ votes")
    parser.add_argument("--output", required=True, type=Path, help="folder for checkpoints, log and the best model")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="recipe keys to override")
    parser.add_argument("--tracker", default="tensorboard", help="any tracker accelerate knows, or none")
    return parser.parse_args(argv)


def build_model(recipe: Recipe) -> tuple[torch.nn.Module, FerImageProcessor]:
    """The recipe's network, seeded, and the image processor that fits it."""
    from transformers import AutoConfig, AutoModelForImageClassification

    names = vocabulary(recipe.data.classes)
    set_seed(recipe.seed)
    config = AutoConfig.for_model(
        recipe.model.type, id2label=id2label(names), label2id=label2id(names), **recipe.model.config
    )
    model = AutoModelForImageClassification.from_config(config)
    processor = FerImageProcessor(
        size=config.image_size,
        num_channels=config.num_channels,
        image_mean=recipe.processor.image_mean,
        image_std=recipe.processor.image_std,
        face_template=recipe.processor.face_template,
        face_margin=recipe.processor.face_margin,
    )
    return model, processor


def load_data(
    recipe: Recipe, processor: FerImageProcessor, data: str, votes: str | None
) -> tuple[ArraySplit, ArraySplit, int]:
    """Training and validation rows, and how many training rows were left out because validation has them."""
    source = load_source(data, votes=votes)
    missing = {"train", "validation"} - set(source)
    if missing:
        raise ValueError(f"{data} has no {' or '.join(sorted(missing))} split; training needs both")
    names = vocabulary(recipe.data.classes)
    train, dropped = source["train"], 0
    if recipe.data.drop_leaking:
        kept = rows_without(train, source["validation"])
        train, dropped = train.select(kept), len(train) - len(kept)
    arrays = load_arrays(train, processor, labels=recipe.data.labels, names=names)
    if recipe.data.fraction < 1:
        order = np.random.default_rng(recipe.seed).permutation(len(arrays))
        arrays = arrays.select(np.sort(order[: round(len(arrays) * recipe.data.fraction)]))
    validation = load_arrays(source["validation"], processor, labels=recipe.data.validation_labels, names=names)
    return arrays, validation, dropped


def data_record(recipe: Recipe, train: ArraySplit, validation: ArraySplit, dropped: int) -> dict:
    """What the model has seen, for ``eval.py`` to tell used data from a test."""
    return {
        "train": {
            "labels": recipe.data.labels,
            "n": len(train),
            "sha256": train.sha256(),
            "left_out_as_leaking": dropped,
        },
        "selection": {
            "labels": recipe.data.validation_labels,
            "n": len(validation),
            "sha256": validation.sha256(),
            "pixel_sha256": _digest(validation.pixel_sha256),
        },
        "train_pixel_sha256": _digest(train.pixel_sha256),
    }


def _digest(hashes: tuple[str, ...]) -> str:
    import hashlib

    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    recipe = load_recipe(arguments.recipe, arguments.set)
    model, processor = build_model(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    accelerator = Accelerator(
        mixed_precision=pick_precision(recipe.precision, device, model),
        gradient_accumulation_steps=recipe.optimizer.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
        log_with=None if arguments.tracker == "none" else arguments.tracker,
        project_dir=arguments.output,
    )
    accelerator.init_trackers(recipe.name)
    train, validation, dropped = load_data(recipe, processor, arguments.data, arguments.votes)
    accelerator.print(
        f"{recipe.name}: {len(train):,} training and {len(validation):,} validation pictures"
        f" ({dropped} training rows left out because validation has them); {accelerator.device},"
        f" {accelerator.num_processes} process(es), precision {accelerator.mixed_precision}"
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "recipe.yaml").write_text(dump_recipe(recipe))
    record = data_record(recipe, train, validation, dropped)

    def keep_best(best: torch.nn.Module) -> None:
        folder = save_portable(best, processor, arguments.output / "best")
        (folder / "training_data.json").write_text(json.dumps(record, indent=2) + "\n")
        (folder / "recipe.yaml").write_text(dump_recipe(recipe))

    run = Run(recipe, accelerator, model, processor.normalize_uint8, train, validation, arguments.output, keep_best)
    if run.resume():
        accelerator.print(f"resuming in epoch {run.progress.epoch + 1}, batch {run.progress.batch}")
    progress = run.train()
    accelerator.print(
        f"best {recipe.select} {abs(progress.best_score):.4f} after epoch {progress.best_epoch + 1}; "
        f"the model is in {arguments.output / 'best'}"
    )
    accelerator.end_training()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, TrainingDiverged, CheckpointError) as error:
        sys.exit(f"train.py: {error}")
