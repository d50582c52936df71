"""The About and Model tabs' figures come from the reports beside the weights."""

import json

import pytest

from fer_hf.demo.about import about_html
from fer_hf.demo.desk import Desk
from fer_hf.demo.model import show_model
from fer_hf.demo.reports import figure
from fer_hf.demo.shelf import Shelf
from tests.demo_fake import FakeRecognizer, fake_shelf

REPORT = {
    "model": "m",
    "split": "PublicTest",
    "labels": "ferplus-majority",
    "n": 3186,
    "metrics": {"accuracy": {"value": 0.8712, "low": 0.859, "high": 0.883}, "macro_f1": {"value": 0.79}},
    "metrics_tta": None,
    "calibration": {"single": {"ece": {"cross_fitted": 0.0142}}, "tta": None},
    "per_class": [{"label": "fear", "n": 99, "precision": 0.7, "recall": {"value": 0.41, "low": 0.3, "high": 0.5}}],
    "most_confused": [{"true": "fear", "predicted": "surprise", "n": 31, "share": 0.313}],
}

ROBUSTNESS = {
    "corruptions": [{"name": "blur", "unit": "px", "strengths": [{"strength": "2", "accuracy": {"value": 0.701}}]}]
}


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "model-a"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(REPORT))
    (folder / "robustness.json").write_text(json.dumps(ROBUSTNESS))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Card\n<script>alert(1)</script>\n")
    return Shelf(Desk(FakeRecognizer(), str(folder)), {"model-a": folder}, lambda name: None)


def test_figures_have_their_intervals():
    assert figure({"value": 0.8712, "low": 0.859, "high": 0.883}) == "0.871 (0.859–0.883)"
    assert [figure(0.5), figure({"value": 0.25}), figure(None)] == ["0.500", "0.250", "–"]


def test_about_tells_what_was_measured_and_where_it_fails(shelf):
    html = about_html(shelf)
    assert html.count("<h3>model-a</h3>") == 1
    assert "0.871 (0.859–0.883)" in html
    assert "(n = 3186)" in html
    assert "<td>0.014</td>" in html
    assert "fear taken for surprise: 31 faces, 31%" in html
    assert "0.410 (0.300–0.500)" in html
    assert "<td>2: 0.701</td>" in html


def test_about_says_so_where_nothing_was_measured():
    html = about_html(fake_shelf())
    assert "no report" in html
    for topic in ("not a feeling", "school", "policing", "dropped with the answer", "MIT licence"):
        assert topic in html


def test_model_shows_its_card_as_text(shelf):
    html = show_model(shelf.first)
    assert "embedded" in html
    assert "0.871" in html
    assert "license: mit" not in html
    assert "<script>" not in html
    assert str(shelf.first.folder.parent) not in html
