"""Label a data set of any size: ``accelerate launch training/predict.py --data user/name|FOLDER --output DIR``.

Every row becomes exactly one row of the parquet files in DIR/data, a picture that cannot be read too. Any number of
processes on any number of machines share the work without talking to each other; run the same command again after an
interruption, with as many processes as you like. docs/labelling.md says what the columns are.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import fer_hf
from fer_hf.detection import MTCNNDetector
from fer_hf.faces import Prediction
from fer_hf.hub import configured_model, load_model
from fer_hf.image_io import read_image
from fer_hf.recognition import FACE_SOURCES, ExpressionRecognizer, FoundFace, as_dict
from training.arguments import positive
from training.pictures import Picture, Pictures, open_pictures

MANIFEST_NAME, DATA_NAME = "manifest.json", "data"
ROWS_PER_SHARD = 1000
BOX = pa.struct([(side, pa.int32()) for side in ("xmin", "ymin", "xmax", "ymax")])


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of pictures or parquet, or user/name[@revision]")
    parser.add_argument("--files", default="*", help="a pattern for the files in it, such as 'data/train-*'")
    parser.add_argument("--output", required=True, type=Path, help="folder that all processes share")
    parser.add_argument("--model", help="a model folder or Hub id (default: FER_MODEL or the embedded one)")
    parser.add_argument("--faces", default="detect", choices=FACE_SOURCES, help="crop: each picture is one face")
    parser.add_argument("--batch-size", type=positive, default=32, help="pictures held at once (default: %(default)s)")
    parser.add_argument("--rows-per-shard", type=positive, default=ROWS_PER_SHARD, help="default: %(default)s")
    return parser.parse_args(argv)


_PLACE = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def place_of_process() -> tuple[int, int, int]:
    """This process's number, how many there are, and its number on this machine, as every launcher states them."""
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _PLACE)
    if not 0 <= rank < world:
        raise ValueError(f"RANK is {rank} and WORLD_SIZE {world}; RANK must be from 0 to WORLD_SIZE - 1")
    return rank, world, local


def load_recognizer(name: str, faces: str, local_rank: int) -> tuple[ExpressionRecognizer, str]:
    """The model on this process's device, with a hash of all that decides its answers."""
    loaded = load_model(name)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    detector = MTCNNDetector(device=device) if faces == "detect" else None
    recognizer = ExpressionRecognizer.from_model(loaded.model.to(device), loaded.processor, detector)
    return recognizer, _model_sha256(recognizer)


def _model_sha256(recognizer: ExpressionRecognizer) -> str:
    model, processor = recognizer.classifier.model, recognizer.classifier.processor
    digest = hashlib.sha256()
    for settings in (model.config.to_diff_dict(), processor.to_dict()):
        kept = {key: value for key, value in settings.items() if not key.startswith("_")}
        digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def describe(pictures: Pictures, recognizer: ExpressionRecognizer, model: str, sha256: str, arguments) -> dict:
    """What the shards in a folder are of; another run may add to them only where all of it is equal."""
    return {
        "data": _name(pictures.source),
        "files": arguments.files,
        "revision": pictures.revision,
        "data_sha256": pictures.state_sha256,
        "rows": len(pictures),
        "rows_per_shard": arguments.rows_per_shard,
        "faces": arguments.faces,
        "model": _name(model),
        "model_sha256": sha256,
        "classes": list(recognizer.labels),
        "fer_hf": fer_hf.__version__,
    }


def _name(source: str) -> str:
    """A Hub id as it is; of a file or folder its name, since its place means nothing elsewhere."""
    return Path(source).resolve().name if Path(source).exists() else source


def claim(output: Path, manifest: dict) -> None:
    """Write the manifest, or compare with the one that is there. Raises ValueError where they differ."""
    (output / DATA_NAME).mkdir(parents=True, exist_ok=True)
    path = output / MANIFEST_NAME
    descriptor, part = tempfile.mkstemp(prefix=f".{MANIFEST_NAME}-", dir=output)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        try:
            os.link(part, path)  # unlike a rename, it fails where another process was faster
        except FileExistsError:
            stored = json.loads(path.read_text(encoding="utf-8"))
            for key in ("data_sha256", "model_sha256", *manifest):
                if stored.get(key) != manifest[key] and key not in ("data", "model"):  # places may differ by machine
                    raise ValueError(
                        f"{output} holds labels with {key} {stored.get(key)!r}, and this run has {manifest[key]!r}; "
                        "give what it was begun with, or another --output"
                    ) from None
    finally:
        Path(part).unlink(missing_ok=True)


def schema(classes: Sequence[str]) -> pa.Schema:
    """The columns of every shard."""
    face = pa.struct(
        [
            ("label", pa.string()),
            ("score", pa.float32()),
            ("scores", pa.struct([(name, pa.float32()) for name in classes])),
            ("box", BOX),
            ("detection_score", pa.float32()),
        ]
    )
    return pa.schema(
        {
            "row": pa.int64(),
            "row_id": pa.string(),
            "label": pa.string(),
            "score": pa.float32(),
            "faces": pa.list_(face),
            "skipped_faces": pa.int32(),
            "error": pa.string(),
        }
    )


def label_rows(
    recognizer: ExpressionRecognizer, rows: Iterable[tuple[str, Picture | Exception]], faces: str, batch_size: int
) -> Iterator[dict]:
    """A row of the schema, but for its number, for each picture; the faces of a batch go through the model together."""
    rows = iter(rows)
    while batch := list(islice(rows, batch_size)):
        looked_at = [_look(recognizer, picture, faces) for _, picture in batch]
        predictions = iter(recognizer.predict([face for found, _, _ in looked_at for face in found]))
        for (row_id, _), (found, skipped, error) in zip(batch, looked_at, strict=True):
            yield _row(row_id, [next(predictions) for _ in found], skipped, error)


def _look(
    recognizer: ExpressionRecognizer, picture: Picture | Exception, faces: str
) -> tuple[list[FoundFace], int, str | None]:
    """Faces, how many more there are, and why the picture cannot be read where it cannot."""
    if isinstance(picture, Exception):
        return [], 0, str(picture)
    try:
        photo = read_image(picture)
    except (ValueError, OSError) as fault:
        return [], 0, str(fault)
    found, skipped = recognizer.locate(photo.image, faces)
    return found, skipped, None


def _row(row_id: str, predictions: list[Prediction], skipped: int, error: str | None) -> dict:
    faces = [as_dict(prediction) for prediction in predictions]
    largest = faces[0] if faces else {"label": None, "score": None}
    return {
        "row_id": row_id,
        "label": largest["label"],
        "score": largest["score"],
        "faces": faces,
        "skipped_faces": skipped,
        "error": error,
    }


def write_shard(path: Path, rows: list[dict], columns: pa.Schema) -> None:
    """Write a shard, whole or not at all, and remove what killed processes left of it."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=columns), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    Path(part).chmod(0o644)
    Path(part).rename(path)
    for left in path.parent.glob(f".{path.name}-*"):
        left.unlink(missing_ok=True)


def shard_paths(output: Path, rows: int, rows_per_shard: int) -> list[Path]:
    """Where each shard goes: shard k holds rows k·S to (k+1)·S."""
    count = -(-rows // rows_per_shard)
    return [output / DATA_NAME / f"labels-{shard:05d}-of-{count:05d}.parquet" for shard in range(count)]


def run(arguments: argparse.Namespace) -> int:
    """Label this process's share of the shards that are not there yet; returns how many rows it labelled."""
    rank, world, local_rank = place_of_process()
    if arguments.output.resolve().is_relative_to(Path(arguments.data).resolve()):
        raise ValueError(f"--output {arguments.output} lies in --data {arguments.data}; name a folder outside of it")
    name = arguments.model or configured_model()
    pictures = open_pictures(arguments.data, arguments.files)
    recognizer, sha256 = load_recognizer(name, arguments.faces, local_rank)
    claim(arguments.output, describe(pictures, recognizer, name, sha256, arguments))
    columns, size = schema(recognizer.labels), arguments.rows_per_shard
    paths, labelled, begun = shard_paths(arguments.output, len(pictures), size), 0, time.monotonic()
    for shard in range(rank, len(paths), world):
        if paths[shard].exists():
            continue
        start, stop = shard * size, min((shard + 1) * size, len(pictures))
        found = label_rows(recognizer, pictures.rows(start, stop), arguments.faces, arguments.batch_size)
        rows = [{"row": number, **row} for number, row in enumerate(found, start)]
        if len(rows) != stop - start:
            raise ValueError(f"{pictures.source} gave {len(rows)} rows for {start} to {stop}; its files have changed")
        write_shard(paths[shard], rows, columns)
        labelled += len(rows)
        rate = labelled / (time.monotonic() - begun)
        print(f"process {rank} of {world}: {paths[shard].name}, {labelled:,} rows, {rate:.1f} a second", flush=True)
    done = sum(path.exists() for path in paths)
    print(f"process {rank} of {world}: {done} of {len(paths)} shards of {len(pictures):,} rows are there", flush=True)
    return labelled


def main(argv: list[str] | None = None) -> int:
    return run(parse_arguments(argv))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"predict.py: {error}")
