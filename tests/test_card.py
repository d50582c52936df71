"""The card of a model folder: its figures are the report's, its metadata is the Hub's, its code runs."""

import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from fer_hf.figures import save_figure
from fer_hf.hub import load_model, save_portable
from tests.evaluation_runs import make_data, run
from training import card, card_text
from training.card_text import FIGURES
from training.files import write_json

RECIPE = {
    "name": "tiny",
    "source": "A tiny network for tests.",
    "claim": "99.9, split not stated",
    "seed": 0,
    "epochs": 3,
    "batch_size": 8,
    "select": "macro_f1",
    "data": {"labels": "ferplus-soft"},
    "optimizer": {"name": "sgd", "lr": 0.1},
}


@pytest.fixture(scope="module")
def model_folder(tiny_model_path, tmp_path_factory):
    """A portable model with two reports, figures, a recipe and its card."""
    data = make_data(tmp_path_factory.mktemp("data"))
    loaded = load_model(tiny_model_path)
    folder = save_portable(loaded.model, loaded.processor, tmp_path_factory.mktemp("cards") / "tiny")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    ferplus = ("--labels", "ferplus-majority", "--tta", "--fit-temperature")
    run(folder, data, folder / "report.json", *ferplus, draw=save_figure)
    run(folder, data, folder / "report_fer2013.json", draw=lambda _, path: path.write_bytes(b""))
    card.main(["--model", str(folder)])
    return folder


@pytest.fixture
def copy(model_folder, tmp_path):
    """The same folder, to be spoilt."""
    return shutil.copytree(model_folder, tmp_path / "tiny")


def read(folder, name="report.json") -> dict:
    return json.loads((folder / name).read_text())


def body(folder) -> str:
    return ModelCard((folder / "README.md").read_text()).text


def rows_of_tables(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_every_figure_of_the_results_is_the_reports(model_folder):
    text = body(model_folder)
    for title, name in (("FER+ majority labels", "report.json"), ("FER2013 labels", "report_fer2013.json")):
        report = read(model_folder, name)
        section = text.split(f"### FER2013 validation (PublicTest), {title}")[1].split("###")[0].split("## ")[0]
        shown = {row[0]: row[1:] for row in rows_of_tables(section)}
        columns = [metrics for metrics in (report["metrics"], report["metrics_tta"]) if metrics]
        for key, figure in FIGURES.items():
            if key not in report["metrics"]:
                continue
            for cell, metrics in zip(shown[figure.name], columns, strict=True):
                scale, digits = (100, 1) if figure.percent else (1, 3)
                expected = [metrics[key][part] * scale for part in ("value", "low", "high")]
                found = [float(number) for number in re.findall(r"-?\d+\.\d+", cell)]
                assert found == pytest.approx(expected, abs=0.51 * 10**-digits), (title, key)
        for one in report["per_class"]:
            assert shown[one["label"]][0] == f"{one['n']:,}"
            assert shown[one["label"]][3].startswith(f"{100 * one['f1']['value']:.1f} [")


def test_calibration_and_cost_are_the_reports(model_folder):
    report, text = read(model_folder), body(model_folder)
    ece = report["calibration"]["single"]["ece"]
    assert f"one view {100 * ece['at_1']:.1f} at temperature 1" in text
    assert f"**{100 * ece['cross_fitted']:.1f}** cross-fitted over 5 folds" in text
    assert f"| parameters | {report['cost']['parameters']:,} |" in text
    assert f"{read(model_folder, 'config.json')['conformal_threshold']:.3f}" in text


def test_metadata_is_a_model_index_the_hub_reads(model_folder):
    data = ModelCard((model_folder / "README.md").read_text()).data
    stated = data.to_dict()
    assert [stated[key] for key in ("license", "library_name", "pipeline_tag")] == [
        "mit",
        "transformers",
        "image-classification",
    ]
    found = {(r.dataset_config, r.metric_name): (r.metric_type, r.metric_value) for r in data.eval_results}
    for name in ("report.json", "report_fer2013.json"):
        report = read(model_folder, name)
        for key, figure in FIGURES.items():
            if key in card._HUB_METRICS and key != "ece":
                expected = (card._HUB_METRICS[key], report["metrics"][key]["value"])
                assert found[report["labels"], figure.name] == expected
        expected = report["calibration"]["single"]["ece"]["cross_fitted"]
        assert found[report["labels"], FIGURES["ece"].name] == ("expected_calibration_error", expected)
    assert found["ferplus-majority", "Accuracy (flip TTA)"][1] == read(model_folder)["metrics_tta"]["accuracy"]["value"]
    assert data.to_dict()["model-index"][0]["name"] == "tiny"


def test_the_code_on_the_card_runs(model_folder, astronaut, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(model_folder)
    blocks = re.findall(r"```python\n(.*?)```", body(model_folder), re.DOTALL)
    assert len(blocks) == 2
    try:
        astronaut.save("photo.jpg")
        astronaut.crop((160, 60, 290, 190)).save("face.png")
        for block in blocks:
            exec(compile(block, "card", "exec"), {})
    finally:
        for name in ("photo.jpg", "face.png"):
            (model_folder / name).unlink(missing_ok=True)
    photo, crop = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch(r"\w+ 0\.\d+ \{'xmin': .*\}", photo)
    assert len(eval(crop)) == 7


def test_links_lead_to_files_and_nothing_is_left_blank(model_folder):
    text = body(model_folder)
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (model_folder / link).is_file(), link
    assert not re.search(r"\{\{|\}\}|None|nan|\{%", text)
    for heading in (
        "Use it",
        "Results",
        "Data and its licences",
        "Training",
        "Limits",
        "Not for",
        "Licence",
        "Citation",
    ):
        assert f"\n## {heading}\n" in text


def test_the_card_says_what_the_rows_served_for(model_folder):
    text = body(model_folder)
    assert "54 rows, 53 distinct pictures (6 more have no such label and are left out). They also set the" in text
    assert "Temperature fitted on 54 pictures with FER+ majority labels." in text
    assert "perceived" in text
    assert "| published for this architecture | 99.9, split not stated |\n| expressions | angry, " in text
    assert "Not measured: neither data set says anything about age" in text


def test_a_card_that_differs_from_its_report_is_out_of_date(copy):
    card.main(["--model", str(copy), "--check"])
    report = read(copy)
    report["metrics"]["accuracy"]["value"] += 0.01
    write_json(copy / "report.json", report)
    with pytest.raises(ValueError, match=r"README.md differs from its reports"):
        card.main(["--model", str(copy), "--check"])


def test_pictures_of_another_source_are_not_said_to_be_fer2013s(copy):
    (copy / "report_fer2013.json").unlink()
    (copy / "training_data.json").unlink()
    write_json(copy / "report.json", read(copy) | {"labels": "dataset"})
    card.main(["--model", str(copy)])
    text = body(copy)
    assert not [word for word in ("FER2013", "FER+", "PrivateTest", "2013", "48×48 and grey") if word in text]
    assert "Pictures of its own source" in text
    (head,) = ModelCard((copy / "README.md").read_text()).data.to_dict()["model-index"]
    assert {result["dataset"]["type"] for result in head["results"]} == {"own-pictures"}


def test_a_figure_that_rows_of_one_class_lack_is_left_out(copy):
    report = read(copy)
    report["metrics"]["auc"] = {"value": None, "low": None, "high": None}
    write_json(copy / "report.json", report)
    card.main(["--model", str(copy)])
    (head,) = ModelCard((copy / "README.md").read_text()).data.to_dict()["model-index"]
    kinds = [metric["type"] for result in head["results"] for metric in result["metrics"]]
    assert kinds.count("roc_auc") == 2  # averaged views, and the other report


def test_what_goes_on_from_fer2013_names_both_sources(copy):
    (copy / "report_fer2013.json").unlink()
    write_json(copy / "report.json", read(copy) | {"labels": "dataset"})
    write_json(
        copy / "training_data.json", {"train": {"n": 9, "labels": "dataset"}, "start": {"n": 8, "labels": "fer2013"}}
    )
    card.main(["--model", str(copy)])
    text = body(copy)
    assert "Pictures of its own source" in text
    assert "goodfellow2013challenges" in text
    assert "FER+" not in text


def test_reports_of_other_weights_are_refused(copy):
    write_json(copy / "report.json", read(copy) | {"weights_sha256": "0"})
    with pytest.raises(ValueError, match="are of different weights"):
        card.render(copy)


def test_reports_from_before_another_temperature_are_refused(copy):
    config = read(copy, "config.json")
    write_json(copy / "config.json", config | {"temperature": config["temperature"] + 0.1})
    with pytest.raises(ValueError, match=r"report\.json has another temperature or other weights than the model"):
        card.render(copy)


def test_member_weights_are_compared_as_reports_state_them():
    report = {"calibration": {"single": {"temperature_stored": 1.0}}, "members": {"weights": {"a": 0.333333}}}
    card.check_settings({"weights": [1 / 3]}, {"": report})
    with pytest.raises(ValueError, match="other weights than the model"):
        card.check_settings({"weights": [0.33]}, {"": report})


@pytest.mark.parametrize("name", ["robustness.json", "attention.json", "memory.json"])
def test_records_of_other_weights_are_refused(name, copy):
    write_json(copy / name, {"weights_sha256": "0"})
    with pytest.raises(ValueError, match=rf"{name} is of other weights than report.json beside it"):
        card.render(copy)


def test_a_memory_says_what_it_holds_and_what_it_changes(copy):
    assert "## Memory" not in card.render(copy)
    validation = [
        {"n": 70, "nearest_cosine": [0.4, 1.0], "classifier_accuracy": 0.6, "accuracy": 0.7},
        {"n": 18, "nearest_cosine": [0.4, 0.625], "classifier_accuracy": 0.5, "accuracy": 0.55},
    ]
    record = {"rows": 1390, "size": 32, "weight": 10.0, "labels": "fer2013", "validation": validation}
    record["command"] = "python training/remember.py"
    write_json(copy / "memory.json", record | {"weights_sha256": read(copy)["weights_sha256"]})
    text = " ".join(card.render(copy).split())
    assert "remembers 1,390 training pictures: no pictures, but 32 bytes of what each looks like" in text
    assert (
        "(FER2013 labels). The classifier's answer counts once, a remembered picture that looks the same 10 ti" in text
    )
    rows = rows_of_tables(card.render(copy))
    assert ["all 70", "60.0", "70.0"] in rows
    assert "Made from the same weights without it by `python training/remember.py`" in text
    assert ["18 at 0.40 to 0.62", "50.0", "55.0"] in rows


def test_what_is_not_recorded_is_not_denied():
    seen = dict.fromkeys(("train", "selection"))
    report = {"n": 9, "n_distinct": 9, "rows_left_out": 0, "calibration": {"folds": 5}}
    assert "What they served for before is not recorded." in card_text.protocol_text(report | {"seen": seen})
    half_known = report | {"seen": seen | {"selection": 0.0}}
    assert "What they served for before is not recorded." in card_text.protocol_text(half_known)
    known = report | {"seen": {"train": 0.0, "selection": 0.0}}
    assert "They served neither for training nor for a choice." in card_text.protocol_text(known)


def test_the_last_checkpoint_is_not_called_a_choice(copy):
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text()) | {"select": "last"}
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    used = read(copy, "training_data.json")
    write_json(copy / "training_data.json", used | {"selection": {"n": 3, "labels": "fer2013"}})
    text = card.render(copy)
    assert "The last one was kept." in text
    assert "Checkpoint of the weights it started from chosen on 3 pictures" in text


def test_weights_are_called_by_their_run_or_folder():
    figure = {"value": 0.91, "low": 0.88, "high": 0.94}
    metrics = dict.fromkeys(("accuracy", "macro_f1", "weighted_f1"), figure)
    starts = ("runs/start/best", "model_cards/resnet_swish_plus")
    records = {name: {"n": 7, "start_from": name, "tta": None, "metrics": metrics} for name in starts}
    assert [reading.cells[1] for reading in card_text.folds_readings(records)] == ["`start`", "`resnet_swish_plus`"]


def test_a_folder_without_report_or_description_is_refused(copy):
    (copy / "recipe.yaml").unlink()
    with pytest.raises(ValueError, match=r"recipe.yaml of its training, or a notes.md"):
        card.render(copy)
    (copy / "notes.md").write_text("The mean of three models.")
    assert "The mean of three models.\n" in card.render(copy)
    assert "it joins models that were trained before" in card.render(copy)
    (copy / "report.json").unlink()
    with pytest.raises(ValueError, match=r"has no report.json; make one with training/eval.py"):
        card.render(copy)


def test_records_over_folds_have_a_section(copy):
    figure = {"value": 0.91, "low": 0.88, "high": 0.94}
    record = {
        "folds": 5,
        "n": 745,
        "start_from": "runs/start/best",
        "tta": None,
        "metrics": {"accuracy": figure, "macro_f1": figure, "weighted_f1": figure},
        "command": "python training/cross_validate.py --report folds.json",
    }
    assert "## Over folds" not in card.render(copy)
    write_json(copy / "folds_agreed.json", record)
    text = card.render(copy)
    assert "| agreed | `start` | 745 | one | 91.0 [88.0, 94.0] |" in text
    assert "5 stratified folds" in text
    assert "- agreed: `python training/cross_validate.py --report folds.json`" in text
