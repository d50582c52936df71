"""Training throughput beside a plain accelerate loop: the same network, augmentations, precision and batch.

The plain loop is what an example would do: a DataLoader whose workers augment one picture at a time with Pillow and
torchvision's transforms. Ours keeps uint8 pictures on the device and augments whole batches there.
"""

import argparse
import os
import time

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader, Dataset

from fer_hf.data.transforms import AugmentOptions, augment
from training.config import Recipe, build
from training.precision import keep_depthwise_fp32, pick_precision
from training.train import build_model

OPTIONS = AugmentOptions(flip=0.5, rotation_deg=15, shift=0.09, scale=0.15, brightness=0.3, contrast=0.3, erasing=0.25)
SYSTEMS = {
    "resnet_swish": {"type": "fer_resnet_swish", "config": {"stem_stride": 2, "hidden_sizes": [32, 64, 128, 256]}},
    "mobilenet_v2": {
        "type": "fer_timm",
        "config": {"backbone": "mobilenetv2_100", "num_channels": 3, "image_size": 48},
    },
}


class PlainPictures(Dataset):
    """Pillow pictures through torchvision's transforms, one at a time."""

    def __init__(self, images: np.ndarray):
        from PIL import Image
        from torchvision.transforms import v2

        self.images = [Image.fromarray(image) for image in images]
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(0.5),
                v2.RandomAffine(15, translate=(0.09, 0.09), scale=(0.85, 1 / 0.85)),
                v2.ColorJitter(brightness=0.3, contrast=0.3),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * (3 if images.ndim == 4 else 1), [0.25] * (3 if images.ndim == 4 else 1)),
                v2.RandomErasing(0.25, scale=(0.02, 0.2)),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(self.images[row])


def steps_per_loop(name: str, loop: str, steps: int, batch_size: int) -> dict:
    """Images a second and the share of a step spent on augmentation, for ``ours`` or ``plain``."""
    recipe = build(Recipe, {"name": name, "model": SYSTEMS[name], "optimizer": {"lr": 0.01}})
    if SYSTEMS[name]["config"].get("num_channels") == 3:
        recipe.processor.image_mean, recipe.processor.image_std = [0.5] * 3, [0.25] * 3
    AcceleratorState._reset_state(reset_partial_state=True)
    model, processor = build_model(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    accelerator = Accelerator(mixed_precision=pick_precision("auto", device))
    if loop == "ours":
        model = keep_depthwise_fp32(model, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model, optimizer = accelerator.prepare(model.to(memory_format=torch.channels_last), optimizer)
    channels = processor.num_channels
    shape = (steps * batch_size, 48, 48) if channels == 1 else (steps * batch_size, 48, 48, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = torch.randint(7, (batch_size,), device=accelerator.device)
    augmenting = 0.0
    if loop == "ours":
        kept = torch.from_numpy(images if channels == 3 else images[..., None]).permute(0, 3, 1, 2).contiguous()
        kept, generator = kept.to(accelerator.device), torch.Generator(accelerator.device).manual_seed(0)
        batches = iter(torch.arange(len(kept), device=accelerator.device).split(batch_size))
    else:
        workers = os.cpu_count() or 1
        batches = iter(accelerator.prepare(DataLoader(PlainPictures(images), batch_size, num_workers=workers)))
    started = None
    for step in range(steps):
        if step == 2:  # the first steps warm up
            _wait(accelerator.device)
            started, augmenting = time.perf_counter(), 0.0
        before = time.perf_counter()
        pixels = next(batches)
        if loop == "ours":
            pixels = processor.normalize_uint8(augment(kept[pixels], OPTIONS, generator))
            _wait(accelerator.device)
        augmenting += time.perf_counter() - before
        output = model(pixels.contiguous(memory_format=torch.channels_last), labels=labels)
        accelerator.backward(output.loss)
        optimizer.step()
        optimizer.zero_grad()
    _wait(accelerator.device)
    seconds = time.perf_counter() - started
    return {"images_per_second": (steps - 2) * batch_size / seconds, "augmenting": augmenting / seconds}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print both loops side by side for each system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments, _ = parser.parse_known_args()
    print(f"training at 48×48, batch {arguments.batch_size}, {torch.get_num_threads()} threads")
    for name in SYSTEMS:
        figures = {}
        for loop in ("plain", "ours"):
            figures[loop] = steps_per_loop(name, loop, arguments.steps, arguments.batch_size)
            share = f"{figures[loop]['augmenting']:.0%} of a step waiting for data"
            print(f"  {name:14} {loop:6} {figures[loop]['images_per_second']:8.0f} images/s, {share}")
        ratio = figures["ours"]["images_per_second"] / figures["plain"]["images_per_second"]
        print(f"  {name:14} ours / plain {ratio:.2f}")


if __name__ == "__main__":
    main()
