"""The same rows in another layout: ``python -m fer_hf.data.convert SOURCE OUTPUT``.

OUTPUT that ends in ``.csv`` becomes a CSV as FER2013's, one that ends in ``.parquet`` a folder of that name with one
parquet file a split, any other a folder of pictures as ``train/happy/000123.png``. From a CSV to pictures and back
gives the same rows in the same order. Votes and subjects travel in parquet alone.
"""

import argparse
import csv
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
from datasets.utils import tqdm
from PIL import Image

from fer_hf.data.sources import SourceOptions, read_source
from fer_hf.data.sources_csv import SIDE_PX
from fer_hf.labels import FER7, NUMBERINGS

USAGE_OF_SPLIT = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}


def convert_splits(source: datasets.DatasetDict, output: str | Path) -> Path:
    """The path of the new layout, which is there as a whole or not at all.

    Raises ValueError where something is at ``output`` already or the layout cannot hold the rows.
    """
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists already; choose another path or remove it")
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(output.suffix.lower(), _write_folders)
    output.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        result = staged / "result"
        write(source, result)
        result.rename(output)
    finally:
        shutil.rmtree(staged)
    return output


def in_row_order(source: datasets.DatasetDict) -> datasets.DatasetDict:
    """The splits with rows whose ids end in numbers (``train/000123``, ``train/happy/000123.png``) in that order.

    Class folders are read class by class; this is the order that the numbers in the file names keep.
    """
    ordered = {}
    for name, split in source.items():
        numbers = [_number(row_id) for row_id in split["row_id"][:]]
        is_known = None not in numbers and len(set(numbers)) == len(numbers)
        ordered[name] = split.select(np.argsort(numbers)) if is_known else split
    return datasets.DatasetDict(ordered)


def _number(row_id: str) -> int | None:
    found = re.search(r"(?:^|/)(\d+)(?:\.\w+)?$", row_id)
    return int(found.group(1)) if found else None


def _write_folders(source: datasets.DatasetDict, folder: Path) -> None:
    folder.mkdir()
    for name, position, row, label in _rows(source.cast_column("image", datasets.Image(decode=False))):
        data = row["image"]["bytes"]
        number = _number(row["row_id"])
        file = folder / name / label / f"{position if number is None else number:06d}{_SUFFIXES[data[:2]]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():  # numbers repeat where sources were merged
            file = file.with_stem(f"{file.stem}-{position:06d}")
        file.write_bytes(data)


def _write_csv(source: datasets.DatasetDict, path: Path) -> None:
    source = in_row_order(source)
    strange = [name for name in source if name not in USAGE_OF_SPLIT]
    lost = sorted({name for split in source.values() for name in split.features["label"].names} - set(FER7))
    if strange or lost:
        raise ValueError(f"a CSV as FER2013's has no place for {', '.join(strange + lost)}; read with classes=7")
    with path.open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["emotion", "pixels", "Usage"])
        for name, _, row, label in _rows(source):
            image = row["image"].convert("L")
            if image.size != (SIDE_PX, SIDE_PX):
                image = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            pixels = " ".join(map(str, image.tobytes()))
            writer.writerow([FER7.index(label), pixels, USAGE_OF_SPLIT[name]])


def _write_parquet(source: datasets.DatasetDict, folder: Path) -> None:
    folder.mkdir()
    for name, split in source.items():
        split.to_parquet(str(folder / f"{name}.parquet"))


def _rows(source: datasets.DatasetDict) -> Iterator[tuple[str, int, dict, str]]:
    """Split, position in it, columns and class name of every row."""
    with tqdm(total=sum(map(len, source.values())), unit=" rows", desc="Writing") as progress:
        for name, split in source.items():
            names = split.features["label"].names
            for position, row in enumerate(split):
                yield name, position, row, names[row["label"]]
                progress.update()


def main(argv: Sequence[str] | None = None) -> int:
    """Convert what the command line names: 0, or 2 with one sentence where it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m fer_hf.data.convert", description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="+", help="folder, CSV, parquet or Hub id; several are merged")
    parser.add_argument("output", help="FILE.csv, FOLDER.parquet or FOLDER")
    parser.add_argument("--votes", metavar="FILE", help="a fer2013new.csv")
    parser.add_argument("--classes", type=int, default=7, help="5, 7 or 8 (default: %(default)s)")
    parser.add_argument(
        "--numbering", default="auto", choices=("auto", *NUMBERINGS), help="what numbers mean as labels"
    )
    arguments = parser.parse_args(argv)
    try:
        options = SourceOptions(votes=arguments.votes, classes=arguments.classes, numbering=arguments.numbering)
        loaded = read_source(arguments.source, options)
        print(convert_splits(loaded.splits, arguments.output))
    except (ValueError, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
