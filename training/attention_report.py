"""Where a model looks: ``python training/attention_report.py --model M --data D --output attention.json``.

For Grad-CAM, CBAM and SE maps: their share on brows, eyes and mouth beside the share of the area, and deletion and
insertion beside random maps. A figure of the same name is put beside the record. Needs a face template.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from fer_hf.data.loaders import ArraySplit
from fer_hf.figures import region_figure, save_figure
from fer_hf.map_geometry import map_grids, place
from training.arguments import positive
from training.attention_regions import (
    deletion_insertion,
    random_maps,
    region_masks,
    region_shares,
    saliency_maps,
)
from training.files import write_json
from training.intervals import bootstrap, rounded
from training.scoring import Loaded, add_split_arguments, drawn_rows, load, make_place, open_split, record_head

_BATCH = 64


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or Hub id")
    parser.add_argument("--rows", type=positive, default=500, help="pictures, drawn by seed (default: %(default)s)")
    parser.add_argument("--output", required=True, type=Path, help="attention.json")
    add_split_arguments(parser)
    return parser.parse_args(argv)


def measure_rows(loaded: Loaded, split: ArraySplit, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """By map, ``random`` last: its share on each region, ``deletion`` and ``insertion``, each (N,)."""
    size_px = loaded.processor.size_px
    masks = region_masks(loaded.processor.face_template, size_px)
    parts: dict[str, list[dict[str, np.ndarray]]] = {}
    for number, images in enumerate(split.images.split(_BATCH)):
        pixels = loaded.processor.normalize_uint8(images.to(loaded.model.device))
        maps = saliency_maps(loaded.model, pixels)
        cells = maps["Grad-CAM"][0].shape[-1]
        maps["random"] = random_maps(len(pixels), cells, seed + number).to(pixels.device), ""
        grid_of = map_grids(loaded.model, pixels[:1].to(loaded.model.dtype))
        for name, (coarse, origin) in maps.items():
            fine = place(coarse, grid_of(origin, coarse.shape[-1]), size_px)
            deletion, insertion = deletion_insertion(loaded.model, pixels, fine)
            figures = region_shares(fine, masks) | {"deletion": deletion, "insertion": insertion}
            parts.setdefault(name, []).append(figures)
    return {
        name: {key: np.concatenate([part[key] for part in batches]) for key in batches[0]}
        for name, batches in parts.items()
    }


def summarise(rows: dict[str, dict[str, np.ndarray]], resamples: int, seed: int) -> dict[str, dict]:
    """Means with paired intervals: each map's figures, and how its deletion and insertion differ from random's."""
    count = len(rows["random"]["deletion"])

    def of_draws(weights: np.ndarray) -> dict:
        figures = {}
        for name, values in rows.items():
            for key, value in values.items():
                known = ~np.isnan(value)
                total = weights[:, known].sum(axis=1, dtype=np.float64)
                unknown = np.full(len(weights), np.nan)
                figures[name, key] = np.divide(weights[:, known] @ value[known], total, out=unknown, where=total > 0)
        return figures | {
            (name, f"{key}_against_random"): figures[name, key] - figures["random", key]
            for name in rows
            for key in ("deletion", "insertion")
        }

    found = bootstrap(of_draws, count, resamples, seed)
    return {name: {key: figure for (of, key), figure in found.items() if of == name} for name in rows}


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    make_place(arguments.output)
    loaded = load(arguments.model, arguments.device)
    if loaded.processor.face_template is None:
        raise ValueError(f"{loaded.name} has no face template, so nobody knows where its crops have eyes and mouth")
    split, _ = open_split(loaded, arguments)
    split = drawn_rows(split, arguments.rows, arguments.seed)
    found = summarise(measure_rows(loaded, split, arguments.seed), arguments.resamples, arguments.seed)
    masks = region_masks(loaded.processor.face_template, loaded.processor.size_px)
    random, measured = found.pop("random"), ("deletion", "insertion")
    record = record_head(loaded, split, arguments) | {
        "area": {name: rounded(mask.mean()) for name, mask in masks.items()},
        "methods": [
            {"name": name, "share": {region: one[region] for region in masks}}
            | {key: one[key] for key in (*measured, *(f"{key}_against_random" for key in measured))}
            for name, one in found.items()
        ],
        "random": {key: random[key] for key in measured},
    }
    write_json(arguments.output, record)
    title = f"{loaded.name}: share of attention and of area"
    save_figure(region_figure(record["area"], record["methods"], title), arguments.output.with_suffix(".png"))
    for one in (*record["methods"], {"name": "random map", "share": {}} | record["random"]):
        shares = "".join(
            f"{name} {100 * figure['value']:.0f}%, "
            for name, figure in one["share"].items()
            if figure["value"] is not None  # every map was 0 everywhere
        )
        areas = ", ".join(f"{key} {one[key]['value']:.3f}" for key in measured)
        print(f"{one['name']}: {shares}{areas}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"attention_report.py: {error}")
