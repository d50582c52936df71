"""Give a trained model a memory of its training rows: ``python training/remember.py --model M --data D --output O``.

The rows are those that the ``recipe.yaml`` beside the weights trained on, with its labels; ``--set`` overrides keys.
What each looks like to the network goes into the weights file, a few dozen bytes a row, and the model then answers from
its classifier and from the rows that look alike (``fer_hf/models/layers_memory.py``). Nothing is trained.
``memory.json`` says what that changed on validation, for all pictures and by how near the nearest remembered row is.
"""

import argparse
import itertools
import shlex
import sys
from pathlib import Path

import torch
from datasets.utils import tqdm
from torch import Tensor

from fer_hf.data.loaders import ArraySplit
from fer_hf.hub import ModelError, save_portable
from fer_hf.models.layers_memory import NeighbourMemory
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification
from training.config import Recipe, load_recipe
from training.files import require_free, write_json, write_text
from training.provenance import describe, read_used, record_used, seen_by_any
from training.scoring import Loaded, hash_weights, load
from training.train import load_data
from training.views import View, predict_views

FILE_NAME = "memory.json"
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)  # of the validation rows, farthest from any remembered row first


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a folder that train.py wrote, with its recipe.yaml")
    parser.add_argument("--data", required=True, nargs="+", action="extend", help="what it was trained on")
    parser.add_argument("--votes", help="fer2013new.csv, where the data carries no FER+ votes")
    parser.add_argument("--output", required=True, type=Path, help="the model folder to write, a new one")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="recipe keys to override"
    )
    parser.add_argument("--size", type=int, default=32, help="bytes of each row (default: %(default)s)")
    parser.add_argument(
        "--weight", type=float, default=30.0, help="of a row that looks the same (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.045, help="how soon others count less (default: %(default)s)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


def open_model(folder: Path, device: str, **memory: float) -> Loaded:
    """The model without any memory. Raises ValueError where its config may not have these values of ``memory``."""
    loaded = load(str(folder), device)
    config = loaded.model.config
    if isinstance(loaded.model, FerEnsembleForImageClassification):
        raise ValueError(
            f"{folder} is of type {config.model_type}, which has no classifier of its own to stand beside; give one of "
            "this project's single models, such as a member of the ensemble"
        )
    type(config)(**{**config.to_dict(), **memory})  # which knows what is allowed, before minutes of looking
    loaded.model.forget()
    return loaded


def embed(loaded: Loaded, images: Tensor, views: tuple[View, ...]) -> tuple[Tensor, ...]:
    """What the memory compares of uint8 pictures (N, C, H, W), the mean over their views: parts (N, D1), (N, D2), …"""
    model = loaded.model
    widths = []
    with tqdm(total=len(images) * len(views), unit=" looks", desc="Looking at pictures") as progress:

        def answer(pixels: Tensor) -> Tensor:
            parts = model.look(model.features(pixels)[0])
            widths[:] = [part.shape[1] for part in parts]
            progress.update(len(pixels))
            return torch.cat(parts, dim=1)

        looks = predict_views(model, images, loaded.processor.normalize_uint8, views, answer=answer)
    return looks.mean(1).split(widths, 1)


def by_nearness(memory: NeighbourMemory, embeddings: Tensor, raw_logits: Tensor, labels: Tensor) -> list[dict]:
    """How often classifier and memory are right, for all pictures and by how near the nearest remembered row is."""
    nearest = torch.cat([memory.similarity(part).amax(1) for part in embeddings.split(512)])
    mixed = torch.cat([memory(*part) for part in zip(embeddings.split(512), raw_logits.split(512), strict=True)])
    alone, together = raw_logits.argmax(1) == labels, mixed.argmax(1) == labels
    order = nearest.argsort()
    ends = [round(share * len(order)) for share in _SHARES]
    groups = (order, *(order[begin:end] for begin, end in itertools.pairwise((0, *ends))))
    return [
        {
            "n": len(rows),
            "nearest_cosine": [round(float(nearest[rows].min()), 3), round(float(nearest[rows].max()), 3)],
            "classifier_accuracy": float(alone[rows].float().mean()),
            "accuracy": float(together[rows].float().mean()),
        }
        for rows in groups
        if len(rows)
    ]


def remember(
    loaded: Loaded, train: ArraySplit, validation: ArraySplit, size: int, weight: float, temperature: float
) -> list[dict]:
    """Give the model a memory of the training rows; returns how it does on validation, one view a picture."""
    model = loaded.model
    keys = embed(loaded, train.images, (View(), View(flip=True)))
    print(f"finding the first {size} of {sum(part.shape[1] for part in keys):,} axes")
    memory = NeighbourMemory.of(keys, train.targets.cpu(), size, weight, temperature)
    pooled, *finer = embed(loaded, validation.images, (View(),))
    with torch.inference_mode():
        raw_logits = model.classifier(model.head(pooled.to(model.device))).cpu()
        rows = by_nearness(memory, torch.cat((pooled, *finer), dim=1), raw_logits, validation.labels.cpu())
    model.remember(memory.to(model.device))
    model.config.temperature = 1.0  # that of the classifier alone
    model.config.conformal_threshold = model.config.conformal_coverage = None
    return rows


def recipe_of(folder: Path, overrides: list[str]) -> Recipe:
    """The recipe that a model folder was trained with. Raises ValueError where it holds none."""
    if not (folder / "recipe.yaml").is_file():
        raise ValueError(f"{folder} has no recipe.yaml, which says what it was trained on; give a folder of train.py")
    return load_recipe(folder / "recipe.yaml", overrides)


def command(arguments: argparse.Namespace) -> str:
    """The command line, with placeholders for the model and files that are not in the repository."""
    parts = ["python training/remember.py --model MODEL --data DATA", *(["--votes VOTES"] if arguments.votes else [])]
    parts += [f"--set {shlex.join(arguments.set)}"] if arguments.set else []
    parts += [f"--{name} {getattr(arguments, name):g}" for name in ("size", "weight", "temperature")]
    return " ".join([*parts, "--output OUTPUT"])


def main(argv: list[str] | None = None) -> None:
    """Write the model with its memory, and what it was trained with, to the output folder."""
    arguments = parse_arguments(argv)
    require_free(arguments.output)
    recipe = recipe_of(arguments.model, [*arguments.set, "data.in_memory=true"])
    settings = {f"memory_{name}": getattr(arguments, name) for name in ("size", "weight", "temperature")}
    loaded = open_model(arguments.model, arguments.device, **settings)
    train, validation, left_out = load_data(recipe, loaded.processor, arguments.data, arguments.votes)
    print(f"looking at {len(train):,} training and {len(validation):,} validation pictures")
    rows = remember(loaded, train, validation, arguments.size, arguments.weight, arguments.temperature)
    folder = save_portable(loaded.model, loaded.processor, arguments.output)
    write_text(folder / "recipe.yaml", (arguments.model / "recipe.yaml").read_text())
    used = {role: one for role, one in read_used(arguments.model).items() if role != "temperature"}  # to be fitted anew
    learned = used.get("train", {}).get("labels", recipe.data.labels)  # what it remembers stands in memory.json
    remembered = {"train": describe(train, labels=learned, left_out_as_leaking=left_out)}
    record_used(folder, used | {"train": seen_by_any([used, remembered], "train")})
    head = {
        "weights_sha256": hash_weights(folder),
        "rows": len(train),
        "labels": recipe.data.labels,
        "validation_labels": recipe.data.validation_labels,
        "size": arguments.size,
        "weight": arguments.weight,
        "temperature": arguments.temperature,
        "command": command(arguments),
    }
    write_json(folder / FILE_NAME, head | {"validation": rows})
    for row in rows:
        low, high = row["nearest_cosine"]
        print(
            f"{row['n']:6,} pictures, nearest row at {low:.3f} to {high:.3f}: classifier "
            f"{100 * row['classifier_accuracy']:.1f}%, with the memory {100 * row['accuracy']:.1f}%"
        )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ModelError) as error:
        sys.exit(f"remember.py: {error}")
