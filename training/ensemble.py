"""Join saved models into one ensemble folder: ``python training/ensemble.py A B C --output DIR [--weights 1 1 2]``.

``--describe`` writes ``ensemble.json`` instead, which names the members' folders and weights and loads like a model,
without a second copy of anything. ``training/ensemble.py DESCRIBED --output DIR`` joins what such a folder describes.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fer_hf.hub import load_model, save_portable
from fer_hf.model_folder import DESCRIPTION, is_described
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification, shared_processor
from training.files import require_free, write_json
from training.provenance import read_used, record_used, used_by_any
from training.scoring import folder_of


def join(
    members: Sequence[str | Path],
    output: Path,
    weights: Sequence[float] | None = None,
    image_size: int | None = None,
) -> Path:
    """The portable folder of an ensemble of saved models (folders or Hub ids), with the data that any of them has seen.

    Raises ValueError where the members' classes or face framing differ, or something is at ``output``.
    """
    require_free(output)
    loaded = [load_model(member) for member in members]
    pairs, names = [(one.model, one.processor) for one in loaded], [Path(member).resolve().name for member in members]
    ensemble = FerEnsembleForImageClassification.from_members(pairs, weights, names, image_size).eval()
    processor = shared_processor([own for _, own in pairs], ensemble.config.image_size)
    folder = save_portable(ensemble, processor, output)
    folders = [folder_of(str(member), one.revision) for member, one in zip(members, loaded, strict=True)]
    record_used(folder, used_by_any([read_used(member) for member in folders]))
    return folder


def describe(
    members: Sequence[Path], output: Path, weights: Sequence[float] | None = None, image_size: int | None = None
) -> Path:
    """A folder whose ``ensemble.json`` names these folders, as seen from there, and their weights.

    Members that ship nowhere else may lie in it. Raises ValueError where they cannot be put together, or ``output``
    holds something else.
    """
    if output.exists() and not is_described(output):
        inside = {member.resolve() for member in members}
        if not output.is_dir() or any(path.resolve() not in inside for path in output.iterdir()):
            raise ValueError(f"{output} exists and describes no ensemble; choose another path")
    pairs = [(one.model, one.processor) for one in map(load_model, members)]
    config = FerEnsembleForImageClassification.from_members(pairs, weights, image_size=image_size).config
    output.mkdir(parents=True, exist_ok=True)
    names = [Path(os.path.relpath(member, output)).as_posix() for member in members]
    size = {} if image_size is None else {"image_size": image_size}
    write_json(output / DESCRIPTION, {"members": names, "weights": config.weights, **size})
    return output


def join_described(described: Path, output: Path) -> Path:
    """The portable folder of the ensemble that a folder describes, with its temperature and what it has seen."""
    require_free(output)
    loaded = load_model(described)
    folder = save_portable(loaded.model, loaded.processor, output)
    record_used(folder, read_used(described))
    return folder


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("members", nargs="+", help="model folders or Hub ids, or one folder that describes an ensemble")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--weights", nargs="+", type=float, help="one a member; equal where absent")
    parser.add_argument(
        "--image-size", type=int, metavar="PX", help="of the pictures it takes; the greatest by default"
    )
    parser.add_argument("--describe", action="store_true", help="write ensemble.json, and no weights")
    arguments = parser.parse_args(argv)
    members = [Path(member) for member in arguments.members]
    if len(members) == 1 and is_described(members[0]):
        if arguments.weights or arguments.image_size or arguments.describe:
            raise ValueError(f"{members[0]} says what its members and weights are; give --output alone")
        print(f"the ensemble of {members[0]} is in {join_described(members[0], arguments.output)}")
        return
    if arguments.describe:
        if missing := [member for member in members if not member.is_dir()]:
            raise ValueError(f"an ensemble is described by folders; {missing[0]} is none")
        folder = describe(members, arguments.output, arguments.weights, arguments.image_size)
    else:
        folder = join(arguments.members, arguments.output, arguments.weights, arguments.image_size)
    print(f"an ensemble of {len(members)} models is in {folder}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"ensemble.py: {error}")
