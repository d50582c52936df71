"""What a model costs: parameters, operations, file size and time for one face.

    python training/cost.py --model model_cards/*

measures it on this machine, in turns, and puts it into each folder's report.json, so that models that were scored on
several machines are timed on one.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_hf.classifier import fold_norms, shared_copy
from fer_hf.model_folder import weight_files
from training.files import read_json, write_json

_WARM_UP, _TIMED, _ROUNDS = 5, 30, 9


def count_parameters(model: nn.Module) -> int:
    """Number of weights, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_mflops(model: nn.Module) -> float:
    """Millions of floating-point operations for one face; a multiply and an add are two."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(_one_face(model))
    return counter.get_total_flops() / 1e6


@torch.inference_mode()
def measure_ms_per_face(model: nn.Module) -> float:
    """Median milliseconds of one forward pass of one face, on the model's device and torch's threads.

    The network is the one that recognition runs: with batch norms folded into the layers before them.
    """
    pixels, network, elapsed = _one_face(model), fold_norms(shared_copy(model)), []
    for _ in range(_WARM_UP + _TIMED):
        _synchronize(pixels.device)
        start = time.perf_counter()
        network(pixels)
        _synchronize(pixels.device)
        elapsed.append(1000 * (time.perf_counter() - start))
    return sorted(elapsed[_WARM_UP:])[_TIMED // 2]


def measure_cost(model: nn.Module, folder: Path) -> dict:
    """Parameters, MFLOPs, megabytes (10⁶ bytes) of weights and milliseconds a face, with what they were measured on."""
    device = next(model.parameters()).device
    return {
        "parameters": count_parameters(model),
        "mflops": round(count_mflops(model), 2),
        "file_mb": round(sum(file.stat().st_size for file in weight_files(folder)) / 1e6, 3),
        "ms_per_face": round(measure_ms_per_face(model), 2),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }


def _one_face(model: nn.Module) -> torch.Tensor:
    side, channels = model.config.image_size, model.config.num_channels
    weight = next(model.parameters())
    return torch.zeros(1, channels, side, side, device=weight.device, dtype=weight.dtype)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_again(folders: Sequence[Path]) -> list[dict]:
    """Replace ``cost`` in the report.json of model folders; models take turns, so that a busy moment meets all of them.

    Raises ValueError where there is no report, or it is of other weights than the folder's.
    """
    from training.scoring import load

    reports, models = [], []
    for folder in folders:
        path = folder / "report.json"
        if not path.is_file():
            raise ValueError(f"{path} is missing; score the model first, with training/eval.py --output {path}")
        loaded = load(str(folder), "cpu")
        reports.append(read_json(path))
        models.append(loaded.model)
        if reports[-1]["weights_sha256"] != loaded.weights_sha256:
            raise ValueError(f"{path} is of other weights than those in {folder}; score the model again")
    rounds = [[measure_ms_per_face(model) for model in models] for _ in range(_ROUNDS)]
    costs = []
    for folder, report, model, seen in zip(folders, reports, models, zip(*rounds, strict=True), strict=True):
        costs.append(measure_cost(model, folder) | {"ms_per_face": round(statistics.median(seen), 2)})
        write_json(folder / "report.json", report | {"cost": costs[-1]})
    return costs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, nargs="+", type=Path, help="model folders that hold a report.json")
    folders = parser.parse_args(argv).model
    for folder, cost in zip(folders, measure_again(folders), strict=True):
        print(f"{folder.name}: {cost['ms_per_face']} ms a face on {cost['threads']} thread(s) of {cost['device']}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"cost.py: {error}")
