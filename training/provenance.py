"""Which data a model has seen: ``training_data.json`` beside its weights, and comparison of a split with it."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from fer_hf.data.loaders import ArraySplit, LazySplit
from fer_hf.model_folder import member_folders
from training.files import read_json, write_json

FILE_NAME = "training_data.json"
ROLES = ("train", "start", "teacher", "selection", "temperature", "member_weights")
"""``start`` is what trained the weights that training started from, ``teacher`` what trained those it learned from."""
FITTED = ("temperature", "member_weights")
"""Roles of a split that a report on it cross-fits."""
_LEARNED = ("train", "start", "teacher")
_SAMPLE_SIZE = 1000  # at most; half of it at least, where there are as many


def describe(split: ArraySplit | LazySplit, **facts: object) -> dict:
    """What identifies a split later, after ``facts`` such as its labels.

    ``sha256`` is of pictures with targets, None where these stay on disk, ``pixel_sha256`` of the source pictures in
    any order. ``sample`` holds the pictures whose hash is divisible by ``every``, so it can be compared with any other
    split, whatever its rows.
    """
    every = 1 << (len(split) // _SAMPLE_SIZE).bit_length()  # a power of 2: records with others keep the sparser sample
    return {
        **facts,
        "n": len(split),
        "row_ids_sha256": row_ids_sha256(split.row_ids),
        "sha256": split.sha256(),
        "pixel_sha256": pixels_sha256(split),
        "sample": {"every": every, "pixel_sha256": sorted({h[:16] for h in split.pixel_sha256 if _chosen(h, every)})},
    }


def row_ids_sha256(row_ids: tuple[str, ...]) -> str:
    """Hash of the names of rows, in order."""
    return hashlib.sha256("\n".join(row_ids).encode()).hexdigest()


def pixels_sha256(split: ArraySplit | LazySplit) -> str:
    """Hash of the source pictures, whatever their order and labels."""
    return hashlib.sha256("".join(sorted(split.pixel_sha256)).encode()).hexdigest()


def rows_sha256(split: ArraySplit | LazySplit) -> str:
    """Hash of the source pictures with their targets, in order."""
    digest = hashlib.sha256("\n".join(split.pixel_sha256).encode())
    digest.update(split.targets.cpu().numpy().tobytes())
    return digest.hexdigest()


def overlap(used: dict, split: ArraySplit) -> float | None:
    """Share of a split's pictures, in [0, 1], that are among those ``describe`` was given.

    Estimated from the sample where the two are not the same; None where the record has no sample, or where so few
    pictures were given that none of them would be in it.
    """
    if used["sha256"] == split.sha256() or used.get("pixel_sha256") == pixels_sha256(split):
        return 1.0
    if "sample" not in used:
        return None
    sample, every = set(used["sample"]["pixel_sha256"]), used["sample"]["every"]
    comparable = [h[:16] in sample for h in split.pixel_sha256 if _chosen(h, every)]
    return sum(comparable) / len(comparable) if comparable else None


def _chosen(pixel_sha256: str, every: int) -> bool:
    return int(pixel_sha256[:16], 16) % every == 0


def write_used(model_folder: Path, role: str, split: ArraySplit | LazySplit, **facts: object) -> None:
    """Record in a model folder which split served in one of ``ROLES``; the others stay."""
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}; choose among {', '.join(ROLES)}")
    record_used(model_folder, _recorded(model_folder) | {role: describe(split, **facts)})


def inherit_used(model_folder: Path, start: Path) -> None:
    """Record what the weights in ``start`` have seen for the model that started from them.

    What the start's checkpoint was chosen on counts as what the model's own was. Nothing is recorded where ``start``
    is no local folder or records nothing.
    """
    used, behind = _recorded(model_folder), read_used(start)
    learned = seen_by_any([{"start": behind[role]} for role in _LEARNED if role in behind], "start")
    inherited = {"start": learned} if learned else {}
    if chosen := seen_by_any([used, behind], "selection"):
        inherited |= {"selection": chosen}
    record_used(model_folder, used | inherited)


def record_teachers(model_folder: Path, teachers: Sequence[Path]) -> None:
    """Record what a model's teachers have learned from, where each of them is a local folder that says so."""
    behind = [read_used(teacher) for teacher in teachers]
    if behind and all("train" in used for used in behind):
        learned = [{"teacher": used[role]} for used in behind for role in _LEARNED if role in used]
        record_used(model_folder, _recorded(model_folder) | {"teacher": seen_by_any(learned, "teacher")})


def seen_by_any(used: Sequence[dict], role: str) -> dict | None:
    """One record of all that served in this role in any of these, so that ``overlap`` finds any of it.

    Records of the same pictures are one, whatever their labels. Where others are left, ``n`` counts a picture once for
    each of them; ``different_pictures`` knows better.
    """
    records = [one[role] for one in used if role in one]
    if not records or all(record == records[0] for record in records):
        return records[0] if records else None
    labels = {record.get("labels") for record in records}
    shared = {"labels": labels.pop()} if len(labels) == 1 and None not in labels else {}
    pictures, targets = ({record.get(key) for record in records} for key in ("pixel_sha256", "sha256"))
    if len(pictures) == 1 and None not in pictures:
        one = {key: value for key, value in records[0].items() if key != "labels"}
        return shared | one | {"sha256": targets.pop() if len(targets) == 1 else None}
    every = math.lcm(*(record["sample"]["every"] for record in records))
    hashes = {h for record in records for h in record["sample"]["pixel_sha256"] if int(h, 16) % every == 0}
    n = sum(record["n"] for record in records)
    return {**shared, "n": n, "sha256": None, "sample": {"every": every, "pixel_sha256": sorted(hashes)}}


def different_pictures(record: dict) -> int | None:
    """About how many pictures a record of several has, by its sample; None where it is of one, and ``n`` says it."""
    if record.get("sha256") or "pixel_sha256" in record or "sample" not in record:
        return None
    return len(record["sample"]["pixel_sha256"]) * record["sample"]["every"]


def read_used(model_folder: Path) -> dict:
    """Role to what ``describe`` said; empty where the folder records nothing.

    A folder that describes an ensemble records only what was fitted to the ensemble itself; its members say the rest.
    """
    members = member_folders(Path(model_folder))
    return used_by_any([read_used(member) for member in members]) | _recorded(model_folder)


def used_by_any(used: Sequence[dict]) -> dict:
    """Role to one record of all that served in it in any of these."""
    return {role: record for role in ROLES if (record := seen_by_any(used, role))}


def record_used(model_folder: Path, used: dict) -> None:
    """Record this of a model folder, role to what ``describe`` said, and nothing else."""
    # On one line: a record is hashes by the hundred, and would be half as large again with each on a line of its own.
    write_json(Path(model_folder) / FILE_NAME, used, indent=None)


def _recorded(model_folder: Path) -> dict:
    path = Path(model_folder) / FILE_NAME
    recorded = read_json(path) if path.is_file() else {}
    return {role: recorded[role] for role in ROLES if role in recorded}
