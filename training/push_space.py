"""Publish the demo as a Space: ``python training/push_space.py --repo-id user/name [--model user/model]``.

Sends the app, the package and README.md, whose header Spaces read. Without ``--model`` the embedded model travels
along; with it the Space loads that model from the Hub, before it starts.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import yaml
from huggingface_hub import HfApi
from packaging.requirements import Requirement

from fer_hf.hub import default_model_path
from training.publishing import PublishError, Target, compare, hub_faults, publish, text_changes

ROOT = Path(__file__).parents[1]
FILES = ("app.py", "requirements.txt", "LICENSE")
FIELDS = ("title", "sdk", "sdk_version", "python_version", "app_file")
"""What the header of README.md must say; Spaces otherwise take Python 3.10, where transformers 5 does not install."""
WEIGHTS = "config.json,preprocessor_config.json,model.safetensors"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo-id", required=True, help="where it goes, e.g. user/name")
    parser.add_argument("--model", metavar="ID[@REVISION]", help="a model on the Hub in place of the embedded one")
    parser.add_argument("--private", action="store_true", help="make a new Space private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of changing main")
    parser.add_argument("--dry-run", action="store_true", help="check and print the difference, send nothing")
    return parser.parse_args(argv)


def space_files(root: Path, model: str | None) -> dict[str, Path]:
    """Everything that runs the demo but its README.md, by path in the Space. Raises ValueError for what is missing."""
    files = {name: root / name for name in FILES}
    files |= _tree(root, root / "fer_hf")
    if model is None:
        files |= _tree(root, default_model_path())
    missing = [name for name in (*FILES, "fer_hf/__init__.py") if not files.get(name, Path()).is_file()]
    if model is None and not (default_model_path() / "model.safetensors").is_file():
        missing.append(f"{default_model_path().relative_to(root)}/model.safetensors")
    if missing:
        raise ValueError(f"{root} has no {missing[0]}, which the Space needs; run this in a clone of the project")
    return files


def _tree(root: Path, folder: Path) -> dict[str, Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    places = {str(path.relative_to(root)): path for path in found}
    return {
        place: path
        for place, path in places.items()
        if not re.search(r"(^|/)(\.|__pycache__/)", place) and path.suffix != ".pyc"
    }


def space_readme(text: str, requirements: str, model: str | None) -> str:
    """README.md, whose header is that of a Space, with the model to fetch from the Hub.

    Raises ValueError where the header would not start: a field is missing, Python too old, or Gradio another than
    ``requirements`` ask for.
    """
    header, body = _front_matter(text)
    for name in FIELDS:
        if not isinstance(header.get(name), str):
            raise ValueError(f"README.md: its header needs {name} as text (a number in quotes); Spaces read it")
    if header["sdk"] != "gradio" or header["app_file"] not in FILES:
        raise ValueError("README.md: its header should say sdk: gradio and app_file: app.py")
    if tuple(map(int, header["python_version"].split("."))) < (3, 11):
        raise ValueError(f"README.md: python_version is {header['python_version']}; transformers 5 needs 3.11 or later")
    gradio = next((line for line in requirements.splitlines() if re.match(r"gradio\b", line)), "gradio")
    if not Requirement(gradio.partition("#")[0]).specifier.contains(header["sdk_version"]):
        raise ValueError(f"README.md: sdk_version {header['sdk_version']} does not fit {gradio!r} in requirements.txt")
    if model is None:
        return text
    name, _, revision = model.partition("@")
    # "user/name FILES REVISION": Spaces fetch these while they build, so that the first visitor does not wait.
    header |= {"models": [name], "preload_from_hub": [f"{name} {WEIGHTS} {revision}".strip()]}
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{body}"


def _front_matter(text: str) -> tuple[dict, str]:
    head, mark, body = text.removeprefix("---\n").partition("\n---\n")
    try:
        header = yaml.safe_load(head) if mark and text.startswith("---\n") else None
    except yaml.YAMLError as fault:
        raise ValueError(f"README.md: its header is no YAML: {' '.join(str(fault).split())}") from fault
    if not isinstance(header, dict):
        raise ValueError("README.md has no header of fields between two lines of ---; Spaces need one")
    return header, body


def check_model(api: HfApi, model: str) -> bool:
    """Whether anybody may fetch the model that the Space should load. Raises PublishError where the Hub lacks it."""
    name, _, revision = model.partition("@")
    Target(name, "model")
    with hub_faults(name):
        info = api.model_info(name, revision=revision or None)
    files = [file.rfilename for file in info.siblings or ()]
    for needed in ("config.json", "preprocessor_config.json", "model.safetensors"):
        if needed not in files:
            raise PublishError(f"{model} has no {needed} on the Hub; publish it with training/push_to_hub.py first")
    return not (info.private or info.gated)


def forget_model(api: HfApi, target: Target) -> None:
    """Remove the variable by which an earlier push made the Space load a model from the Hub."""
    with hub_faults(target.repo_id):
        before = api.get_space_variables(target.repo_id).get("FER_MODEL")
        if before is not None:
            api.delete_space_variable(target.repo_id, "FER_MODEL")
            print(f"{target.url}: FER_MODEL was {before.value} and is removed; the embedded model serves")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    target = Target(arguments.repo_id, "space", arguments.private, arguments.create_pr, "gradio")
    files = space_files(ROOT, arguments.model)
    requirements = files["requirements.txt"].read_text(encoding="utf-8")
    readme = space_readme((ROOT / "README.md").read_text(encoding="utf-8"), requirements, arguments.model)
    api = HfApi()
    if arguments.model and not check_model(api, arguments.model):
        print(f"{arguments.model} is private or gated: the Space loads it only with a secret HF_TOKEN that may read it")
    with tempfile.TemporaryDirectory(prefix="fer-hf-space-") as folder:
        files["README.md"] = Path(folder, "README.md")
        files["README.md"].write_text(readme, encoding="utf-8")
        difference = compare(api, target, files)
        print("\n".join([target.url, *difference.lines(), *text_changes(api, target, difference)]))
        if arguments.dry_run:
            print("dry run: nothing was sent")
            return
        if difference.is_empty:
            print(f"already there, at commit {difference.parent}")
        else:
            published = publish(api, target, difference, "Publish the demo")
            print(f"{published.url}: every file has its hash")
    if arguments.model and arguments.create_pr:
        print(f"once it is merged, set the Space's variable FER_MODEL to {arguments.model}")
    elif arguments.model:
        with hub_faults(target.repo_id):
            api.add_space_variable(target.repo_id, "FER_MODEL", arguments.model)
        print(f"{target.url}: FER_MODEL is {arguments.model}")
    elif not arguments.create_pr:
        forget_model(api, target)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"push_space.py: {error}")
