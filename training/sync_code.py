"""Bring the code in model folders up to date with fer_hf/models: ``python training/sync_code.py model_cards/*``.

Run it after every change to fer_hf/models; a test compares the two byte by byte.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import fer_hf.models
from fer_hf.registry import MODEL_TYPES

SOURCE = Path(fer_hf.models.__file__).parent
OURS = ("configuration_", "modeling_", "layers_", "image_processing_fer")
"""How the names of our files begin, those of earlier versions too; others in a model folder are left alone."""


def portable_code(folder: Path) -> dict[str, bytes]:
    """The files that must lie in a model folder, by name, as they are in fer_hf/models; none for a stock model."""
    from transformers.dynamic_module_utils import get_relative_import_files

    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if model_type not in MODEL_TYPES:
        return {}
    config_module, _, model_module, _ = MODEL_TYPES[model_type]
    roots = [SOURCE / f"{module}.py" for module in (config_module, model_module, "image_processing_fer")]
    needed = {*roots, *(Path(file) for root in roots for file in get_relative_import_files(root))}
    return {file.name: file.read_bytes() for file in sorted(needed)}


def sync(folder: Path) -> list[str]:
    """The names of the files that were written or removed."""
    wanted = portable_code(folder)
    ours = [file for file in folder.glob("*.py") if wanted and file.name.startswith(OURS)]
    present = {file.name: file.read_bytes() for file in ours}
    for name in present.keys() - wanted.keys():
        (folder / name).unlink()
    changed = [name for name, content in wanted.items() if present.get(name) != content]
    for name in changed:
        part = folder / f".{name}.part"
        part.write_bytes(wanted[name])
        part.replace(folder / name)
    return sorted({*changed, *(present.keys() - wanted.keys())})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="model folders; others are passed over")
    for folder in parser.parse_args(arguments).folders:
        if (folder / "config.json").is_file():
            print(f"{folder}: {', '.join(sync(folder)) or 'up to date'}")


if __name__ == "__main__":
    main()
