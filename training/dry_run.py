"""What a run would do: the effective recipe, a grid of an augmented batch, memory and time."""

import resource
import time
from typing import TYPE_CHECKING

import torch
from PIL import Image

from fer_hf.data.transforms import augment, mix
from training.config import dump_recipe
from training.recording import WARM_UPS

if TYPE_CHECKING:
    from training.loop import Run

TIMED_STEPS = 3


def dry_run(run: "Run") -> None:
    """Print the recipe, save ``dry_run.png`` in the run's output, time a few steps; no checkpoint is written."""
    print(dump_recipe(run.recipe))
    run.output.mkdir(parents=True, exist_ok=True)
    run.begin()
    batches = iter(run.loader)
    images, targets = run.train_data.fetch(next(batches))
    grid = run.output / "dry_run.png"
    augmented_grid(run, images, targets).save(grid)
    print(f"an augmented batch: {grid}")
    seconds = []
    first = WARM_UPS + 1 if run.recorded else 1  # what comes before is no step like the others
    for seed, batch in zip(range(first + TIMED_STEPS), batches, strict=False):
        started = time.perf_counter()
        loss, _, _ = run.step(*run.train_data.fetch(batch), seed)
        float(loss)  # waits for the device
        seconds.append(time.perf_counter() - started)
    parameters = sum(p.numel() for p in run.plain_model.parameters())
    print(f"parameters: {parameters:,}; memory at its highest: {peak_memory_mib(run.accelerator.device):,.0f} MiB")
    if timed := sorted(seconds[first:]):
        step = timed[len(timed) // 2]
        epoch = step * run.batches
        print(
            f"a step: {step:.3f} s; an epoch of {run.batches} steps: about {epoch / 60:.1f} min; "
            f"{run.recipe.epochs} epochs: about {epoch * run.recipe.epochs / 3600:.1f} h"
        )


def augmented_grid(run: "Run", images: torch.Tensor, targets: torch.Tensor, columns: int = 8) -> Image.Image:
    """Up to 32 pictures, each as it is above as it is trained on."""
    images, targets = images[:32], targets[:32]
    generator = torch.Generator(images.device).manual_seed(run.recipe.seed)
    shown = augment(images, run.step.augment, generator)
    shown, _ = mix(shown, targets, run.step.augment, generator)
    scale = max(96 // images.shape[-1], 1)
    cell = images.shape[-1] * scale
    sheet = Image.new("RGB", (columns * (cell + 4), -(-len(images) // columns) * (2 * cell + 12)), "white")
    for index, pair in enumerate(zip(images, shown, strict=True)):
        row, column = divmod(index, columns)
        for part, picture in enumerate(pair):
            array = picture.round().to(torch.uint8).cpu().permute(1, 2, 0).numpy()
            tile = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).resize((cell, cell))
            sheet.paste(tile, (column * (cell + 4), row * (2 * cell + 12) + part * (cell + 2)))
    return sheet


def peak_memory_mib(device: torch.device) -> float:
    """The most memory this process has held: on the device where it counts itself, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
