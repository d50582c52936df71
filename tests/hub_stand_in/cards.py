"""The Hub's check of the YAML at the head of a README.md (``/api/validate-yaml``): errors and warnings."""

from collections.abc import Callable
from pathlib import Path

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

LICENSES = Path(__file__).with_name("licenses.txt").read_text().split()
SIZES = ["n<1K", *(f"{a}<n<{b}" for a, b in (("1K", "10K"), ("10K", "100K"), ("100K", "1M"), ("1M", "10M")))]
COLOURS = ["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"]
SDKS = ["gradio", "docker", "static", "streamlit"]
VISION_TASKS = ["image-classification", "image-feature-extraction", "object-detection", "other"]


def validate(content: str, kind: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a card of a model, dataset or space."""
    lines = content.replace("\r\n", "\n").lstrip("\ufeff").split("\n")
    if lines[0] != "---" or "---" not in lines[1:]:
        if kind == "space":
            return ["Missing configuration in README"], []
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    except yaml.YAMLError as fault:
        return [f"YAML Metadata Error: {fault}"], []
    if not isinstance(data, dict):
        return ['"metadata" must be of type object'], []
    checks = {"model": _MODEL, "dataset": _DATASET, "space": _SPACE}[kind] | _COMMON
    errors = [f'"{name}" {fault}' for name, value in data.items() if name in checks and (fault := checks[name](value))]
    if kind == "space" and "sdk" not in data:
        errors.append('"sdk" is required')
    return errors, []


def _is(kind: type, name: str) -> Callable[[object], str | None]:
    return lambda value: None if isinstance(value, kind) else f"must be a {name}"


def _one_of(allowed: list[str]) -> Callable[[object], str | None]:
    return lambda value: None if value in allowed else f"must be one of [{', '.join(allowed)}]"


def _list_of(check: Callable[[object], str | None], single: bool = False) -> Callable[[object], str | None]:
    def fault(value: object) -> str | None:
        if single and not isinstance(value, list):
            return check(value)
        if not isinstance(value, list):
            return "must be an array"
        return next((f"[{index}] {found}" for index, item in enumerate(value) if (found := check(item))), None)

    return fault


def _configs(value: object) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return "must be an array of objects"
    if not all(isinstance(item.get("config_name"), str) for item in value):
        return "[].config_name is required"
    return None


def _model_index(value: object) -> str | None:
    try:
        _, results = model_index_to_eval_results(value)
    except (KeyError, TypeError, IndexError, AttributeError) as fault:
        return f"is not valid: {type(fault).__name__} {fault}"
    if not all(isinstance(result.metric_value, int | float | str) for result in results):
        return "is not valid: metric value must be a number"
    return None


_STRING = _is(str, "string")
_COMMON = {
    "license": _list_of(_one_of(LICENSES), single=True),
    "tags": _list_of(_STRING),
    "language": _list_of(_STRING, single=True),
    "pretty_name": _STRING,
}
_MODEL = {
    "pipeline_tag": _one_of(VISION_TASKS),
    "library_name": _STRING,
    "datasets": _list_of(_STRING, single=True),
    "metrics": _list_of(_STRING),
    "model-index": _model_index,
}
_DATASET = {
    "task_categories": _list_of(_one_of(VISION_TASKS)),
    "size_categories": _list_of(_one_of(SIZES), single=True),
    "configs": _configs,
}
_SPACE = {
    "sdk": _one_of(SDKS),
    "sdk_version": _STRING,
    "python_version": _STRING,
    "app_file": _STRING,
    "colorFrom": _one_of(COLOURS),
    "colorTo": _one_of(COLOURS),
    "models": _list_of(_STRING),
    "preload_from_hub": _list_of(_STRING),
    "pinned": _is(bool, "boolean"),
    "short_description": lambda value: (
        None if isinstance(value, str) and len(value) <= 60 else "must be ≤ 60 characters"
    ),
}
