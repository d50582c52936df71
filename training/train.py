"""Train one recipe: ``accelerate launch training/train.py --recipe R.yaml --data DATA --output DIR``.

Run it again with the same output to resume. A finished run says so, and goes on once its recipe has more epochs.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DataLoaderConfiguration, parse_flag_from_env, set_seed
from torch import nn

from fer_hf.data.audit import quick_findings
from fer_hf.data.audit_scan import scan
from fer_hf.data.loaders import ArraySplit, LazySplit, load_arrays, load_lazy
from fer_hf.data.sources import load_source
from fer_hf.hub import ModelError, save_portable
from fer_hf.labels import id2label, label2id
from fer_hf.models.image_processing_fer import FerImageProcessor
from training.checkpoints import CheckpointError, latest_checkpoint
from training.config import ModelRecipe, ProcessorRecipe, Recipe, as_run, dump_recipe, load_recipe
from training.distillation import Teacher
from training.dry_run import dry_run
from training.files import write_text
from training.loop import Progress, Run, TrainingDiverged
from training.precision import pick_precision
from training.provenance import inherit_used, record_teachers, record_used, write_used
from training.recording import RecordingError
from training.starting import continue_from, load_ours, warm_start

_MAY_CHANGE = ("name", "source", "claim", "claimed_accuracy", "trials", "epochs", "phases", "early_stopping", "record")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="a YAML file under training/recipes/")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        action="extend",
        help="parquet or class folders, fer2013.csv or a Hub id; several merge",
    )
    parser.add_argument("--votes", help="fer2013new.csv, where the data carries no FER+ votes")
    parser.add_argument("--output", required=True, type=Path, help="folder for checkpoints, log and the best model")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="recipe keys to override"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="end training near this time: epochs are left out, the rate falls sooner, recipe.yaml counts those run",
    )
    parser.add_argument("--dry-run", action="store_true", help="show recipe, an augmented batch, memory and time")
    parser.add_argument("--tracker", default="tensorboard", help="any tracker accelerate knows, or none")
    return parser.parse_args(argv)


def check_same_run(recipe: Recipe, output: Path) -> None:
    """Raise ValueError where the folder holds a run of another recipe, which could not go on as this one.

    More epochs, further phases, words about the recipe and how steps are launched make no other run. Whether the data
    are those that it began with, and whether all epochs that it has had are in the recipe, is for ``Run.resume``.
    """
    path = output / "recipe.yaml"
    if latest_checkpoint(output / "checkpoints") is None or not path.is_file():
        return
    began, now = (asdict(one) for one in (load_recipe(path), recipe))
    other = [key for key in now if key not in _MAY_CHANGE and began[key] != now[key]]
    phases = [[phase | {"epochs": None} for phase in one["phases"]] for one in (began, now)]
    if phases[1][: len(phases[0])] != phases[0]:
        other.append("phases")
    if other:
        raise ValueError(
            f"{output} holds a run whose recipe differs in {', '.join(other)}; give another --output, or the "
            "recipe that the run began with"
        )


def build_model(recipe: Recipe) -> tuple[nn.Module, FerImageProcessor]:
    """The recipe's network, seeded, with the weights it starts from, and the image processor that fits it."""
    from transformers import AutoConfig, AutoModelForImageClassification

    names = recipe.data.names
    labels = {"id2label": id2label(names), "label2id": label2id(names)}
    set_seed(recipe.seed)
    start = load_ours(recipe.model.start_from, "can be started from") if recipe.model.start_from else None
    if start and not recipe.model.config:
        kind = start.model.config.model_type
        if recipe.processor != ProcessorRecipe() or recipe.model.type not in (ModelRecipe.type, kind):
            raise ValueError(
                f"without model.config the run goes on with {recipe.model.start_from} as it is, its {kind} and its "
                "processor; drop model.type and processor, or give model.config"
            )
        return continue_from(start, labels), start.processor
    config = AutoConfig.for_model(recipe.model.type, **labels, **recipe.model.config)
    model = AutoModelForImageClassification.from_config(config)
    if start:
        PartialState().print(warm_start(model, start))
    elif recipe.model.pretrained:
        if not hasattr(model, "load_imagenet_weights"):
            raise ValueError(f"model.pretrained: {recipe.model.type} has no ImageNet weights; set it to false")
        model.load_imagenet_weights()
    elif recipe.phases[0].train_last is not None:
        raise ValueError(
            "the first phase freezes a backbone of random weights; set model.pretrained or model.start_from, "
            "or remove phases[0].train_last"
        )
    processor = FerImageProcessor(
        size=config.image_size,
        num_channels=config.num_channels,
        image_mean=recipe.processor.image_mean,
        image_std=recipe.processor.image_std,
        face_template=recipe.processor.face_template,
        face_margin=recipe.processor.face_margin,
    )
    return model, processor


def build_teachers(recipe: Recipe) -> dict[str, Teacher]:
    """The saved models to learn from, by what the recipe calls them."""
    teachers = {}
    for distill in (phase.distill or recipe.distill for phase in recipe.phases):
        if distill.teacher and distill.teacher not in teachers:
            loaded = load_ours(distill.teacher, "can teach")
            teachers[distill.teacher] = Teacher(loaded.model, loaded.processor, recipe.data.names)
    return teachers


def load_data(
    recipe: Recipe, processor: FerImageProcessor, data: str | list[str], votes: str | None
) -> tuple[ArraySplit | LazySplit, ArraySplit | LazySplit, int]:
    """Training and validation rows, and how many training rows were left out because validation has them."""
    source = load_source(data, recipe.data.source, **({"votes": votes} if votes else {}))
    missing = sorted({"train", "validation"} - set(source))
    if missing:
        raise ValueError(
            f"{data} has no {' and no '.join(missing)} split; training needs both: set data.source.splits, such as "
            "{validation: 0.2}, or data.source.folds"
        )
    scanned = scan(source)
    for finding in quick_findings(source, scanned):
        PartialState().print(f"audit, {finding['level']}: {finding['text']}")
    names = recipe.data.names
    hashes = {name: scanned.hashes_of(name).tolist() for name in ("train", "validation")}
    train, validation = (source[name].add_column("pixel_sha256", hashes[name]) for name in hashes)
    dropped = 0
    if recipe.data.drop_leaking:
        kept = scanned.rows_apart("train", "validation")
        train, dropped = train.select(kept), len(train) - len(kept)
    load = load_arrays if recipe.data.in_memory else load_lazy
    split = load(train, processor, labels=recipe.data.labels, names=names)
    if recipe.data.fraction < 1:
        order = np.random.default_rng(recipe.seed).permutation(len(split))
        split = split.select(np.sort(order[: round(len(split) * recipe.data.fraction)]))
    judges = load(validation, processor, labels=recipe.data.validation_labels, names=names)
    return split, judges, dropped


def build_accelerator(recipe: Recipe, output: Path, tracker: str) -> Accelerator:
    """Accelerate as the recipe needs it; ``accelerate launch`` decides on devices and processes."""
    available = [str(name) for name in get_available_trackers()]
    if tracker not in ("none", *available):
        raise ValueError(f"--tracker {tracker} is not installed; choose none or one of {', '.join(available)}")
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    device = torch.device("cuda" if torch.cuda.is_available() and not on_cpu else "cpu")
    return Accelerator(
        cpu=on_cpu,  # said aloud: from the environment alone, accelerate takes several CPU processes for one
        mixed_precision=pick_precision(recipe.precision, device),
        gradient_accumulation_steps=recipe.optimizer.accumulate,
        # A batch is cut across processes, so a recipe means the same however many there are.
        dataloader_config=DataLoaderConfiguration(split_batches=True, non_blocking=True),
        step_scheduler_with_optimizer=False,
        log_with=None if tracker == "none" else tracker,
        project_dir=output,
    )


def begin(run: Run, output: Path) -> None:
    """Go on from the last checkpoint where there is one that fits, write the recipe, and open the trackers."""
    resumed = run.resume()
    if run.accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / "recipe.yaml", dump_recipe(run.recipe))
    run.accelerator.init_trackers(run.recipe.name)
    if resumed:
        progress = run.progress
        run.accelerator.print(
            f"this run is finished, after {progress.epoch} epochs; it goes on once its recipe has more"
            if progress.finished
            else f"resuming in epoch {progress.epoch + 1}, batch {progress.batch}"
        )


def end(run: Run, output: Path) -> None:
    """Say what was kept, and let a run that had a time limit record the epochs that it came to."""
    recipe, progress = run.recipe, run.progress
    if run.accelerator.is_main_process and run.pace.ends_at is not None:
        for folder in (output, output / "best"):
            write_text(folder / "recipe.yaml", dump_recipe(as_run(recipe, progress.phase_epochs)))
    kept = "the last model" if recipe.select == "last" else f"best {recipe.select} {abs(progress.best_score):.4f}"
    run.accelerator.print(f"{kept} after epoch {progress.best_epoch + 1}; the model is in {output / 'best'}")
    run.accelerator.end_training()


def main(argv: list[str] | None = None) -> Progress | None:
    """Train as the arguments say; returns where the run ended, None for a dry run."""
    arguments = parse_arguments(argv)
    if arguments.minutes is not None and arguments.minutes <= 0:
        raise ValueError(f"--minutes must be above 0; {arguments.minutes:g} was given")
    recipe = load_recipe(arguments.recipe, arguments.set)
    check_same_run(recipe, arguments.output)
    accelerator = build_accelerator(recipe, arguments.output, arguments.tracker)  # first: what follows asks who prints
    model, processor = build_model(recipe)
    teachers = build_teachers(recipe)
    train, validation, dropped = load_data(recipe, processor, arguments.data, arguments.votes)
    accelerator.print(
        f"{recipe.name}: {len(train):,} training and {len(validation):,} validation pictures"
        f" ({dropped} training rows left out because validation has them); {accelerator.device},"
        f" {accelerator.num_processes} process(es), precision {accelerator.mixed_precision}"
    )

    def keep_best(best: nn.Module) -> None:
        folder = save_portable(best, processor, arguments.output / "best")
        record_used(folder, {})  # what was fitted to weights before these is not theirs
        write_used(folder, "train", train, labels=recipe.data.labels, left_out_as_leaking=dropped)
        if recipe.select != "last":
            write_used(folder, "selection", validation, labels=recipe.data.validation_labels)
        if recipe.model.start_from:
            inherit_used(folder, Path(recipe.model.start_from))
        record_teachers(folder, [Path(teacher) for teacher in teachers])
        write_text(folder / "recipe.yaml", dump_recipe(recipe))

    limit_s = None if arguments.minutes is None else 60 * arguments.minutes
    run = Run(
        recipe,
        accelerator,
        model,
        processor.normalize_uint8,
        train,
        validation,
        arguments.output,
        keep_best,
        teachers,
        limit_s,
    )
    if arguments.dry_run:
        dry_run(run)
        return None
    begin(run, arguments.output)
    progress = run.train()
    end(run, arguments.output)
    return progress


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ModelError, TrainingDiverged, CheckpointError, RecordingError) as error:
        sys.exit(f"train.py: {error}")
