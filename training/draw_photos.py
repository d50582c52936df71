"""A folder of mixed pictures as a student's phone makes them, drawn from FER2013 by seed.

The published affectnet_se system was trained on 745 photos in HEIC, JPG and PNG, which nobody else has. This draws as
many of each class from FER2013's Training rows: those for which at least ``--min-votes`` of the ten FER+ raters chose
the class; with 0, those for which no other class has as many. In two steps, so that the rows are known before any
result:

    python training/draw_photos.py --data DATA --ids agreed.json            # draws the rows
    python training/draw_photos.py --data DATA --ids agreed.json --output FOLDER   # makes the folder of them
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pillow_heif
from PIL import ExifTags, Image

from fer_hf.data.sources import drawn_row_ids, load_source
from fer_hf.labels import FERPLUS_COLUMNS
from training.files import require_free, write_json

COUNTS = {"angry": 95, "fear": 192, "happy": 230, "sad": 142, "surprise": 86}  # as published
FORMATS = ("HEIC", "JPEG", "PNG")
SUFFIXES = {"HEIC": ".heic", "JPEG": ".jpg", "PNG": ".png"}
QUALITY = 95
_STORED_UNDER = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def draw(train: datasets.Dataset, min_votes: int, seed: int) -> dict[str, list[str]]:
    """Row ids by class, in row order. Raises ValueError where too few rows agree enough."""
    votes, row_ids = np.asarray(train["votes"][:]), np.asarray(train["row_id"][:], dtype=object)
    generator = np.random.default_rng(seed)
    drawn = {}
    for name, count in COUNTS.items():
        column = FERPLUS_COLUMNS.index(name)
        is_top = votes[:, column] > np.delete(votes, column, axis=1).max(axis=1)
        rows = np.flatnonzero(is_top & (votes[:, column] >= min_votes))
        if len(rows) < count:
            raise ValueError(
                f"{name} has {len(rows)} rows of at least {min_votes} votes, {count} are wanted; ask for fewer votes"
            )
        drawn[name] = row_ids[np.sort(generator.permutation(rows)[:count])].tolist()
    return drawn


def write_photos(
    train: datasets.Dataset, by_class: dict[str, list[str]], folder: Path, seed: int, shares: dict[str, float]
) -> None:
    """Class folders of the drawn rows, each picture in a format drawn by seed.

    ``shares`` of the pictures are ``turned`` (stored on their side or head, with the EXIF tag that says so),
    ``misnamed`` (with another format's suffix) and ``corrupt`` (cut off in the middle).
    """
    places = {row_id: row for row, row_id in enumerate(train["row_id"][:])}
    row_ids = [(name, row_id) for name, ids in by_class.items() for row_id in ids]
    if missing := [row_id for _, row_id in row_ids if row_id not in places]:
        raise ValueError(
            f"train lacks {len(missing):,} of the {len(row_ids):,} drawn rows, such as {missing[0]}: they were drawn "
            "from other data"
        )
    generator = np.random.default_rng(seed)
    chosen = {key: _chosen(generator, len(row_ids), share) for key, share in shares.items()}
    formats = generator.permutation(np.resize(np.arange(len(FORMATS)), len(row_ids)))
    turns = generator.choice(list(_STORED_UNDER), len(row_ids))
    for index, (name, row_id) in enumerate(row_ids):
        kind = FORMATS[formats[index]]
        turn = int(turns[index]) if index in chosen["turned"] and kind == "JPEG" else None
        data = _encoded(train[places[row_id]]["image"].convert("RGB"), kind, turn)
        if index in chosen["corrupt"]:
            data = data[: len(data) // 2]
        other = FORMATS[(formats[index] + 1) % len(FORMATS)]
        suffix = SUFFIXES[other if index in chosen["misnamed"] else kind]
        file = folder / name / f"IMG_{index + 1:04d}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _chosen(generator: np.random.Generator, count: int, share: float) -> set[int]:
    return set(generator.permutation(count)[: round(share * count)].tolist())


def _encoded(image: Image.Image, kind: str, turn: int | None) -> bytes:
    buffer = io.BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(buffer, quality=QUALITY)
    elif kind == "JPEG":
        exif = Image.Exif()
        if turn is not None:
            exif[ExifTags.Base.Orientation] = turn
            image = image.transpose(_STORED_UNDER[turn])
        image.save(buffer, "JPEG", quality=QUALITY, exif=exif.tobytes())
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Draw rows, or make the folder of rows that were drawn: 0, or 2 with one sentence where it cannot be done."""
    arguments = _arguments(argv)
    try:
        if arguments.output is None:
            _draw_into(arguments)
        else:
            _make_folder(arguments)
    except (ValueError, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    return 0


def _draw_into(arguments: argparse.Namespace) -> None:
    if arguments.ids.exists():
        raise ValueError(f"{arguments.ids} exists: the rows are drawn already; give --output to make their folder")
    train = _train(arguments)
    found = {
        "about": "Rows of FER2013 Training by FER+ class (plurality), drawn by training/draw_photos.py",
        "seed": arguments.seed,
        "min_votes": arguments.min_votes,
        "row_ids": draw(train, arguments.min_votes, arguments.seed),
    }
    arguments.ids.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.ids, found)
    print(f"{arguments.ids}: {sum(map(len, found['row_ids'].values()))} rows")


def _make_folder(arguments: argparse.Namespace) -> None:
    require_free(arguments.output)
    drawn_row_ids(arguments.ids)  # says what is wrong with the file, if anything is
    drawn = json.loads(arguments.ids.read_text(encoding="utf-8"))
    shares = {key: getattr(arguments, key) for key in ("turned", "misnamed", "corrupt")}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{arguments.output.name}-", dir=arguments.output.parent))
    try:
        write_photos(_train(arguments), drawn["row_ids"], staged, drawn["seed"], shares)
        staged.chmod(0o755)
        staged.rename(arguments.output)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    print(arguments.output)


def _train(arguments: argparse.Namespace) -> datasets.Dataset:
    train = load_source(arguments.data, **({"votes": arguments.votes} if arguments.votes else {}))["train"]
    if "votes" not in train.column_names:
        raise ValueError(f"{arguments.data} has no FER+ votes; give fer2013new.csv as --votes")
    return train


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="FER2013: its CSV or a folder of parquet")
    parser.add_argument("--votes", help="fer2013new.csv, where the data has no votes")
    parser.add_argument("--ids", required=True, type=Path, help="JSON file of the drawn rows")
    parser.add_argument("--min-votes", type=int, default=7, help="of ten raters for the class (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder to make of the rows in --ids")
    parser.add_argument("--turned", type=float, default=0.1, help="share of pictures with EXIF rotation (JPEG only)")
    parser.add_argument("--misnamed", type=float, default=0.05, help="share with another format's suffix")
    parser.add_argument("--corrupt", type=float, default=0.0, help="share cut off in the middle, for trials of readers")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
