"""Join saved models into one ensemble folder: ``python training/ensemble.py A B C --output DIR [--weights 1 1 2]``."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from fer_hf.hub import load_model, save_portable
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification, shared_processor
from training.provenance import FILE_NAME, ROLES, read_used, write_json


def join(members: Sequence[str | Path], output: Path, weights: Sequence[float] | None = None) -> Path:
    """The portable folder of an ensemble of saved models (folders or Hub ids), with the data that any of them has seen.

    Raises ValueError where the members' classes or face framing differ.
    """
    loaded = [load_model(member) for member in members]
    pairs = [(one.model, one.processor) for one in loaded]
    ensemble = FerEnsembleForImageClassification.from_members(pairs, weights).eval()
    folder = save_portable(ensemble, shared_processor([processor for _, processor in pairs]), output)
    used = [read_used(Path(member)) for member in members]
    write_json(folder / FILE_NAME, {role: record for role in ROLES if (record := _seen_by_any(used, role))})
    return folder


def _seen_by_any(used: Sequence[dict], role: str) -> dict | None:
    """One record of all that served in this role, so that ``overlap`` finds any of it."""
    records = [member[role] for member in used if role in member]
    if not records or all(record == records[0] for record in records):
        return records[0] if records else None
    every = math.lcm(*(record["sample"]["every"] for record in records))
    hashes = {h for record in records for h in record["sample"]["pixel_sha256"] if int(h, 16) % every == 0}
    labels = {record.get("labels") for record in records}
    shared = {"labels": labels.pop()} if len(labels) == 1 else {}
    n = sum(record["n"] for record in records)
    return {**shared, "n": n, "sha256": None, "sample": {"every": every, "pixel_sha256": sorted(hashes)}}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", nargs="+", help="model folders or Hub ids")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--weights", nargs="+", type=float, help="one a member; equal where absent")
    arguments = parser.parse_args(argv)
    folder = join(arguments.members, arguments.output, arguments.weights)
    print(f"an ensemble of {len(arguments.members)} models is in {folder}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"ensemble.py: {error}")
