"""Write README.md of a model folder: ``python training/card.py --model model_cards/NAME``.

Every figure comes from report.json and report_*.json there, every fact about training from recipe.yaml and
training_data.json; folds_*.json, seeds.json, memory.json, robustness.json, attention.json, samples.webp and curves.png
add their sections. notes.md, where there is one, holds the words that only this model needs. Of a described ensemble,
ensemble.json stands for the config.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fer_hf.model_folder import is_described, member_folders, settings_file
from training.card_text import (
    FIGURES,
    OWN,
    attention_table,
    calibration_text,
    class_table,
    conformal_text,
    confused_text,
    cost_text,
    data_name,
    folds_text,
    members_text,
    memory_text,
    protocol_text,
    range_text,
    results_table,
    robustness_table,
    seeds_text,
    training_text,
)
from training.files import read_json, write_text
from training.provenance import read_used

TEMPLATE = Path(__file__).with_name("card_template.md")
LICENSE = "mit"
_TAGS = ("facial-expression-recognition", "perceived-expression", "faces", "fer_hf")
_HUB_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "weighted_f1": "f1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "auc": "roc_auc",
    "ece": "expected_calibration_error",
}


def read_reports(folder: Path) -> dict[str, dict]:
    """Reports of a model folder by what follows ``report`` in their file names; the primary one, ``""``, is first.

    Raises ValueError where there is none, or where they are not all of the same weights.
    """
    if not (folder / "report.json").is_file():
        raise ValueError(f"{folder} has no report.json; make one with training/eval.py --output {folder}/report.json")
    paths = [folder / "report.json", *sorted(folder.glob("report_*.json"))]
    reports = {path.stem.removeprefix("report"): read_json(path) for path in paths}
    if len({report["weights_sha256"] for report in reports.values()}) > 1:
        raise ValueError(f"the reports in {folder} are of different weights; evaluate them again with training/eval.py")
    return reports


def read_folds(folder: Path) -> dict[str, dict]:
    """Records of training/cross_validate.py in a model folder, by what follows ``folds_`` in their file names."""
    return {path.stem.removeprefix("folds_"): read_json(path) for path in sorted(folder.glob("folds_*.json"))}


def read_seeds(folder: Path, report: dict) -> dict | None:
    """The record of training/seeds.py in a model folder, where it is of the same rows, labels and views as a report.

    Raises ValueError where none of its runs gave the weights that the report is of.
    """
    path = folder / "seeds.json"
    record = read_json(path) if path.is_file() else None
    if record is None or any(record[key] != report[key] for key in ("data_sha256", "labels", "tta")):
        return None
    if report["weights_sha256"] not in {run["weights_sha256"] for run in record["runs"]}:
        raise ValueError(f"no run of {path} has the weights in {folder}; make it again with training/seeds.py")
    return record


def render(folder: Path) -> str:
    """README.md of a model folder, from the files in it.

    Raises ValueError where one is missing or contradicts another.
    """
    reports, recipe, used = read_reports(folder), read_recipe(folder), read_used(folder)
    primary, config = reports[""], read_config(folder)
    check_settings(config, reports)
    labels = {entry.get("labels") for entry in (*used.values(), *reports.values())}
    own = any(report["labels"] == OWN for report in reports.values())
    card = ModelCard.from_template(
        card_data=metadata(folder.resolve().name, reports),
        template_path=str(TEMPLATE),
        name=folder.resolve().name,
        about=about_text(folder, recipe),
        claim=(recipe or config).get("claim", "").strip(),
        members=[os.path.relpath(member, folder) for member in member_folders(folder)],
        classes=primary["classes"],
        config=SimpleNamespace(**{"conformal_threshold": None} | config),
        cost=SimpleNamespace(**primary["cost"]),
        cost_place=cost_text(primary["cost"]),
        headline=headline(primary),
        reports=[report_section(suffix, report) for suffix, report in reports.items()],
        folds=folds_text(read_folds(folder)),
        seeds=seeds_text(read_seeds(folder, primary), primary),
        robustness=_section(folder / "robustness.json", robustness_table, primary),
        memory=_section(folder / "memory.json", memory_text, primary),
        attention=_section(folder / "attention.json", attention_table, primary),
        data=training_text(used, chosen=recipe is None or recipe["select"] != "last"),
        uses_fer2013=bool(labels - {OWN, None}),
        uses_votes=any(str(label).startswith("ferplus") for label in labels),
        uses_own=own,
        untested=all(report["split"] != "test" and report["labels"] != OWN for report in reports.values()),
        training=recipe_text(recipe),
        recipe=recipe and yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=110).strip(),
        has_samples=(folder / "samples.webp").is_file(),
        has_curves=(folder / "curves.png").is_file(),
        rare=rare_text(primary),
        subgroups=subgroup_text(folder, own),
        license_name=LICENSE.upper(),
    )
    return str(card).strip() + "\n"


def check_settings(config: dict, reports: dict[str, dict]) -> None:
    """Raises ValueError where a report was made before the temperature, or an ensemble's weights, were set anew."""
    for suffix, report in reports.items():
        same = report["calibration"]["single"]["temperature_stored"] == config.get("temperature", 1.0)
        if "members" in report:
            stated = [round(weight, 6) for weight in config["weights"]]  # as reports round what they state
            same &= list(report["members"]["weights"].values()) == stated
        if not same:
            raise ValueError(
                f"report{suffix}.json has another temperature or other weights than the model; make it again"
            )


def read_recipe(folder: Path) -> dict | None:
    """The effective recipe that training left in a model folder; None for a model that no training made."""
    path = folder / "recipe.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_config(folder: Path) -> dict:
    """config.json, or what ensemble.json describes with the input that its members make together."""
    config = read_json(settings_file(folder))
    members = [read_json(member / "config.json") for member in member_folders(folder)]
    return {key: max(one[key] for one in members) for key in ("image_size", "num_channels") if members} | config


def about_text(folder: Path, recipe: dict | None) -> str:
    """What the model is: where its recipe comes from, and the words of notes.md. Raises ValueError for neither."""
    notes = folder / "notes.md"
    parts = [recipe["source"].strip()] if recipe else []
    if is_described(folder):
        parts += [read_config(folder).get("source", "").strip(), "It is the weighted mean of several models' answers."]
    parts += [notes.read_text(encoding="utf-8").strip()] if notes.is_file() else []
    if not any(parts):
        raise ValueError(f"nothing says what {folder} is; give it the recipe.yaml of its training, or a notes.md")
    return "\n\n".join(part for part in parts if part)


def metadata(name: str, reports: dict[str, dict]) -> ModelCardData:
    """The card's YAML head with a model-index of every report, plain and averaged over views."""
    results = []
    for report in reports.values():
        for metrics, tta in ((report["metrics"], ""), (report["metrics_tta"] or {}, report["tta"])):
            values = {key: metrics[key]["value"] for key in _HUB_METRICS if key in metrics}
            # Rows of one class have no AUC.
            results += [_result(report, key, value, tta) for key, value in values.items() if value is not None]
        results.append(_result(report, "ece", report["calibration"]["single"]["ece"]["cross_fitted"], ""))
    return ModelCardData(
        model_name=name,
        language="en",
        license=LICENSE,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=list(_TAGS),
        metrics=["accuracy", "f1", "roc_auc"],
        eval_results=results,
    )


def _result(report: dict, key: str, value: float, tta: str) -> EvalResult:
    return EvalResult(
        task_type="image-classification",
        task_name="Facial expression recognition",
        dataset_type="own-pictures" if report["labels"] == OWN else "fer2013",
        dataset_name=data_name(report),
        dataset_config=report["labels"],
        dataset_split=report["split"],
        metric_type=_HUB_METRICS[key],
        metric_name=FIGURES[key].name + (f" ({tta} TTA)" if tta else ""),
        metric_value=value,
        verified=False,
    )


def headline(report: dict) -> SimpleNamespace:
    """The first figure of the card: accuracy, averaged over views where that was measured."""
    metrics = report["metrics_tta"] or report["metrics"]
    where = data_name(report) + (f", {report['tta']} TTA" if report["tta"] else "")
    return SimpleNamespace(name="accuracy", where=where, figure=f"{range_text(metrics['accuracy'])} %")


def report_section(suffix: str, report: dict) -> SimpleNamespace:
    """What the template shows of one report."""
    return SimpleNamespace(
        suffix=suffix,
        title=data_name(report),
        protocol=protocol_text(report),
        members=members_text(report),
        results=results_table(report),
        resamples=report["intervals"]["resamples"],
        per_class=class_table(report),
        confused=confused_text(report),
        calibration=calibration_text(report),
        conformal=conformal_text(report),
        command=report["command"],
    )


def recipe_text(recipe: dict | None) -> str:
    """One sentence on how the weights were learned."""
    if recipe is None:
        return "No weights were learned for this model itself: it joins models that were trained before."
    optimizer, data = recipe["optimizer"], recipe["data"]
    best = recipe["select"].replace("_", " ")
    kept = "The last one was kept." if best == "last" else f"The checkpoint with the best validation {best} was kept."
    return (
        f"Recipe `{recipe['name']}`: {recipe['epochs']} epochs at most, batches of {recipe['batch_size']}, "
        f"{optimizer['name']} at a rate of {optimizer['lr']:g}, labels `{data['labels']}`, seed {recipe['seed']}. "
        f"{kept}"
    )


def rare_text(report: dict) -> str:
    """Which classes had the fewest rows, and what that means."""
    rare = sorted(report["per_class"], key=lambda one: one["n"])[:2]
    named = " and ".join(f"{one['label']} ({one['n']} rows)" for one in rare)
    return f"{named[0].upper()}{named[1:]} are rare in the split above; their figures rest on few pictures."


def subgroup_text(folder: Path, own: bool = False) -> str:
    """What is known of subgroups: subgroups.md of the folder, or that nothing is; ``own`` pictures are others."""
    measured = folder / "subgroups.md"
    if measured.is_file():
        return measured.read_text(encoding="utf-8").strip()
    if own:
        return "Not measured. Expect differences between people whom the pictures show often and others."
    return (
        "Not measured: neither data set says anything about age, sex, skin or origin. Expect differences; web search "
        "of 2013 found some people far more often than others."
    )


def _section(path: Path, write: Callable[[dict], str], report: dict) -> str:
    record = read_json(path) if path.is_file() else None
    if record and record["weights_sha256"] != report["weights_sha256"]:
        raise ValueError(f"{path} is of other weights than report.json beside it; make it again")
    return write(record) if record else ""


def is_current(folder: Path) -> bool:
    """Whether README.md says what the files beside it say."""
    readme = folder / "README.md"
    return readme.is_file() and readme.read_text(encoding="utf-8") == render(folder)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, nargs="+", type=Path, help="model folders")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a card is out of date")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    for folder in arguments.model:
        if arguments.check:
            if not is_current(folder):
                raise ValueError(f"{folder}/README.md differs from its reports; run training/card.py --model {folder}")
        else:
            write_text(folder / "README.md", render(folder))
            print(f"wrote {folder / 'README.md'}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"card.py: {error}")
