"""The tables of results: what the reports and recipes say, and where the published figure was missed."""

import copy
import json

import pytest
import yaml

from training import results

FIGURE = {"value": 0.681, "low": 0.66, "high": 0.7}
REPORT = {
    "labels": "fer2013",
    "split": "validation",
    "n": 3589,
    "metrics": {"accuracy": FIGURE, "macro_f1": FIGURE, "auc": FIGURE},
    "metrics_tta": None,
    "calibration": {"single": {"ece": {"at_1": 0.05, "cross_fitted": 0.0123}}},
    "cost": {"parameters": 2232263, "mflops": 31.4, "file_mb": 4.6, "ms_per_face": 3.21},
}


@pytest.fixture
def cards(tmp_path):
    """Folder of two models: the better one below its claim, the other without one."""
    for name, accuracy, stated in (
        ("poor", 0.5, {"name": "poor"}),
        ("good", 0.681, {"name": "good", "claim": "val 68.9", "claimed_accuracy": 68.9, "trials": 3}),
    ):
        report = copy.deepcopy(REPORT)
        report["metrics"]["accuracy"]["value"] = accuracy
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
        (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(stated))
    return tmp_path


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_claim_and_trials_stand_in_their_columns(cards):
    head, _, good, poor = map(cells, results.full_table(results.read_reports(cards)).splitlines())
    row = dict(zip(head, good, strict=True))
    assert row["model"] == "[good](../model_cards/good)"
    assert row["published claim"] == "val 68.9 (**missed**)"  # 68.1
    assert row["accuracy, %"] == "68.1 (66.0–70.0)"
    assert (row["ECE at 1 → fitted"], row["parameters"], row["trials"]) == ("0.050 → 0.012", "2,232,263", "3")
    row = dict(zip(head, poor, strict=True))
    assert (row["published claim"], row["trials"]) == ("–", "–")


def test_views_that_are_averaged_count_where_there_are_any(cards):
    path = cards / "good" / "report.json"
    report = json.loads(path.read_text())
    better = {name: figure | {"value": 0.69} for name, figure in report["metrics"].items()}
    path.write_text(json.dumps(report | {"metrics_tta": better}))
    good = results.read_reports(cards)[0]
    assert "missed" not in results.full_table([good])
    assert "| 69.0 (66.0–70.0) |" in results.short_table([good])


def test_the_readme_gets_its_table_between_its_marks():
    text = f"before\n{results.START}\nold\n{results.END}\nafter"
    assert results.replaced(text, "new") == f"before\n{results.START}\nnew\n{results.END}\nafter"
    with pytest.raises(ValueError, match="lacks the lines"):
        results.replaced("nothing", "new")
