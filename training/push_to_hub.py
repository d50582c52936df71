"""Publish a model folder: ``python training/push_to_hub.py --model model_cards/NAME --repo-id user/name``.

The folder is checked first, the difference to what is on the Hub printed, everything sent as one commit (or pull
request), and the model loaded back from that commit and compared with the folder.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

import yaml
from huggingface_hub import HfApi

from fer_hf.model_folder import check_model_folder, is_described
from training.card import render
from training.publishing import PublishError, Target, compare, publish, text_changes

REQUIRED = ("README.md", "report.json", "config.json", "preprocessor_config.json")
SUFFIXES = (".json", ".safetensors", ".py", ".md", ".png", ".webp", ".onnx", ".yaml")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a folder such as model_cards/NAME")
    parser.add_argument("--repo-id", required=True, help="where it goes, e.g. user/name")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of changing main")
    parser.add_argument("--dry-run", action="store_true", help="check and print the difference, send nothing")
    return parser.parse_args(argv)


def model_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The files of a complete model, by their path in the repository, and the names of files that stay here.

    Raises ValueError where one is missing, broken, pickled, or contradicts another.
    """
    if is_described(folder):
        raise ValueError(
            f"{folder} describes an ensemble and is no model by itself; join it first: "
            f"python training/ensemble.py {folder} --output FOLDER, then evaluate it there"
        )
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; a model is published only with {', '.join(REQUIRED)}")
    config, processor_config = check_model_folder(folder, str(folder), trust_remote_code=True)
    found = sorted(path for path in folder.rglob("*") if path.is_file() and _is_visible(path.relative_to(folder)))
    for path in found:
        if path.suffix in PICKLE_SUFFIXES:
            raise ValueError(f"{path} is pickled or no part of a model; move it away, weights go as safetensors")
    _check_code(folder, config.get("auto_map", {}) | processor_config.get("auto_map", {}))
    _check_recipe(folder)
    _check_report(folder, config)
    _check_exports(folder, config)
    _check_card(folder)
    kept = {str(path.relative_to(folder)): path for path in found if path.suffix in SUFFIXES}
    return kept, [str(path.relative_to(folder)) for path in found if path.suffix not in SUFFIXES]


def _is_visible(path: Path) -> bool:
    return not any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _check_code(folder: Path, auto_map: dict[str, str]) -> None:
    """Every class that the configs name is in a file here, and so is everything that those files import from beside."""
    for reference in auto_map.values():
        module, _, name = reference.rpartition(".")
        file = folder / f"{module}.py"
        if not file.is_file() or not re.search(rf"^class {name}\b", file.read_text(encoding="utf-8"), re.MULTILINE):
            raise ValueError(f"{folder}: auto_map names {reference}, which is in no file here; save the model again")
    for file in folder.glob("*.py"):
        for module in re.findall(r"^\s*from \.(\w+) import", file.read_text(encoding="utf-8"), re.MULTILINE):
            if not (folder / f"{module}.py").is_file():
                raise ValueError(f"{folder}: {file.name} imports {module}.py, which is missing; save the model again")


def _check_recipe(folder: Path) -> None:
    """recipe.yaml names no place on this machine, which would be published."""
    path = folder / "recipe.yaml"
    left = [yaml.safe_load(path.read_text(encoding="utf-8"))] if path.is_file() else []
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and Path(value).is_absolute():
            raise ValueError(f"{path} names {value}, a place on this machine; shorten it to what may be published")


def _check_report(folder: Path, config: dict) -> None:
    """report.json is of these weights and these classes."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except ValueError as fault:
        raise ValueError(
            f"{folder / 'report.json'} is no JSON; evaluate the model again with training/eval.py"
        ) from fault
    classes = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
    for key, actual in (("weights_sha256", _weights_sha256(folder)), ("classes", classes)):
        if report.get(key) != actual:
            raise ValueError(
                f"{folder / 'report.json'} is of other {key.split('_')[0]} than the model beside it; evaluate it again "
                "with training/eval.py"
            )


def _weights_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _check_exports(folder: Path, config: dict) -> None:
    """Every .onnx file is what training/export.py made of these weights and this temperature."""
    path = folder / "export_report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made_of = (report.get("weights_sha256"), report.get("temperature"))
    hashes = {report[kind]["file"]: report[kind]["sha256"] for kind in ("onnx", "int8") if kind in report}
    for file in sorted(folder.glob("*.onnx")):
        unchanged = hashes.get(file.name) == hashlib.sha256(file.read_bytes()).hexdigest()
        if not unchanged or made_of != (_weights_sha256(folder), config.get("temperature")):
            raise ValueError(
                f"{file} is no export of the model beside it; run training/export.py --model {folder}, or remove it"
            )


def _check_card(folder: Path) -> None:
    """README.md says what the reports beside it say, and every picture it shows is here and goes along."""
    readme = folder / "README.md"
    written, rendered = readme.read_text(encoding="utf-8"), render(folder)
    for number, (line, expected) in enumerate(zip_longest(written.splitlines(), rendered.splitlines()), start=1):
        if line != expected:
            raise ValueError(
                f"{readme}, line {number} is {line!r} where the files beside it give {expected!r}; run "
                f"training/card.py --model {folder}"
            )
    for name in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)", written):
        if not (folder / name).is_file():
            raise ValueError(f"{readme} shows {name}, which is not in the folder; evaluate the model again")
        if not name.endswith(SUFFIXES):
            raise ValueError(f"{readme} shows {name}, which is not sent; sent are {', '.join(SUFFIXES)}")


def load_back(folder: Path, target: Target, commit: str) -> None:
    """Raises PublishError where the model at that commit, loaded without fer_hf, is not the one in ``folder``."""
    with tempfile.TemporaryDirectory(prefix="fer-hf-load-back-") as caches:
        # Empty caches: nothing that was downloaded before can stand in for a file that is missing there.
        environment = os.environ | {"HF_HUB_CACHE": f"{caches}/hub", "HF_MODULES_CACHE": f"{caches}/modules"}
        script = Path(__file__).with_name("load_back.py")
        child = subprocess.run(
            [sys.executable, str(script), str(folder.absolute()), target.repo_id, commit],
            env=environment,
            cwd=caches,
            capture_output=True,
            text=True,
            check=False,
        )
    if child.returncode:
        lines = child.stderr.strip().splitlines()
        raise PublishError(f"{target.repo_id}@{commit[:8]} does not load: {lines[-1] if lines else child.returncode}")
    wrong = [name for name, holds in json.loads(child.stdout.splitlines()[-1]).items() if not holds]
    if wrong:
        raise PublishError(f"{target.repo_id}@{commit[:8]} loads, but not the same: {', '.join(wrong)} differ")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    target = Target(arguments.repo_id, "model", arguments.private, arguments.create_pr)
    files, left_out = model_files(arguments.model)
    if left_out:
        print(f"stays here, no part of a model: {', '.join(left_out)}")
    api = HfApi()
    difference = compare(api, target, files)
    print("\n".join([target.url, *difference.lines(), *text_changes(api, target, difference)]))
    if arguments.dry_run:
        print("dry run: nothing was sent")
        return
    if difference.is_empty:
        print(f"already there, at commit {difference.parent}")
        load_back(arguments.model, target, difference.parent)
        return
    published = publish(api, target, difference, f"Publish {arguments.model.name}")
    load_back(arguments.model, target, published.commit)
    print(f"{published.url}: every file has its hash, and the model loads and answers the same")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"push_to_hub.py: {error}")
