"""An ensemble that a folder describes: loaded, calibrated, compared with its members, joined and carded."""

import json
import shutil

import numpy as np
import pytest
import torch

from fer_hf.demo.shelf import embedded_models
from fer_hf.hub import ModelError, load_model
from fer_hf.model_folder import weight_files
from fer_hf.recognition import ExpressionRecognizer
from tests.evaluation_runs import make_data, run
from tests.test_ensemble_command import save_member
from training import card, push_to_hub
from training.calibration import cross_fit, fit_member_weights, mix
from training.ensemble import join_described, main
from training.members import against_members
from training.provenance import read_used, record_used
from training.report import Scored, build_report
from training.scoring import load


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """A folder with two members and the description of both, weights 1 to 3."""
    root = tmp_path_factory.mktemp("ensembles") / "model_cards"
    members = [save_member(root / name, seed, {}) for seed, name in enumerate(("first", "second"))]
    main([*members, "--describe", "--output", str(root / "both"), "--weights", "1", "3"])
    return root


def copy_of(cards, tmp_path, **changes):
    root = shutil.copytree(cards, tmp_path / "cards")
    file = root / "both" / "ensemble.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return root / "both"


def test_the_description_names_members_from_its_place_and_holds_no_weights(cards):
    described = json.loads((cards / "both" / "ensemble.json").read_text())
    assert described == {"members": ["../first", "../second"], "weights": [0.25, 0.75]}
    assert [file.name for file in (cards / "both").iterdir()] == ["ensemble.json"]
    assert weight_files(cards / "both") == [
        cards / "both" / "../first/model.safetensors",
        cards / "both" / "../second/model.safetensors",
    ]


def test_members_that_ship_nowhere_else_lie_in_its_folder_and_other_things_do_not(cards, tmp_path):
    root = shutil.copytree(cards, tmp_path / "cards")
    for name in ("one", "two"):
        shutil.copytree(root / "second", root / "own" / name)
    members = [str(root / "first"), *(str(root / "own" / name) for name in ("one", "two"))]
    main([*members, "--describe", "--output", str(root / "own")])
    described = json.loads((root / "own" / "ensemble.json").read_text())
    assert described["members"] == ["../first", "one", "two"]
    assert load_model(root / "own").model.member_names == ("first", "one", "two")
    (root / "own" / "ensemble.json").unlink()
    with pytest.raises(ValueError, match="exists and describes no ensemble"):
        main([*members[:2], "--describe", "--output", str(root / "own")])


def test_it_answers_as_the_mean_of_its_members_and_as_its_joined_folder(cards, tmp_path):
    both = copy_of(cards, tmp_path, temperature=1.5, conformal_threshold=0.2, conformal_coverage=0.9)
    main([str(both), "--output", str(tmp_path / "joined")])
    assembled, joined = load_model(both).model, load_model(tmp_path / "joined").model
    pixels = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        expected = sum(
            weight * load_model(cards / name).model(pixels).logits.softmax(1)
            for weight, name in ((0.25, "first"), (0.75, "second"))
        )
        torch.testing.assert_close(assembled(pixels).raw_logits.exp(), expected)
        torch.testing.assert_close(assembled(pixels).logits, expected.log() / 1.5)
        torch.testing.assert_close(joined(pixels).logits, assembled(pixels).logits, atol=1e-3, rtol=1e-3)
    assert joined.config.conformal_threshold == 0.2
    assert assembled.member_names == joined.member_names == ("first", "second")
    assert (tmp_path / "joined" / "training_data.json").is_file()


def test_a_description_may_name_the_size_that_it_takes(cards, tmp_path):
    large = save_member(tmp_path / "large", 2, {}, size=16)
    for output in (tmp_path / "both", tmp_path / "small"):
        size = ["--image-size", "8"] if output.name == "small" else []
        main([str(cards / "first"), large, "--describe", "--output", str(output), *size])
        loaded = load_model(output)
        side = 8 if output.name == "small" else 16
        assert loaded.model.config.image_size == loaded.processor.size_px == side
        main([str(output), "--output", str(tmp_path / f"joined_{output.name}")])
        joined = load_model(tmp_path / f"joined_{output.name}")
        assert joined.model.config.image_size == joined.processor.size_px == side
    with pytest.raises(ValueError, match="says what its members and weights are"):
        main([str(tmp_path / "small"), "--output", str(tmp_path / "other"), "--image-size", "16"])


def test_the_app_takes_it_by_path_and_shelves_it(cards, monkeypatch):
    monkeypatch.setenv("FER_MODEL", str(cards / "both"))
    assert ExpressionRecognizer.from_pretrained().labels[0] == "angry"
    monkeypatch.setattr("fer_hf.demo.shelf.default_model_path", lambda: cards / "first")
    assert list(embedded_models()) == ["first", "both", "second"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": []}, "must list the folders of its members"),
        ({"members": ["../third"]}, r"its member \.\./third is no model folder"),
        ({"members": ["../both"]}, r"its member \.\./both is no model folder"),
        ({"weight": [1, 2]}, "has the key 'weight'; known are members, weights"),
        ({"weights": [1]}, "weights must be 2 numbers from 0"),
        ({"temperature": 0}, "temperature must be a positive number"),
        ({"image_size": 7}, "image_size is 7; choose the size of a member: 8"),
    ],
)
def test_what_is_wrong_with_it_is_one_sentence(cards, tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        load_model(copy_of(cards, tmp_path, **changes))


def test_fitting_weights_stores_them_and_reports_cross_fitted_figures(cards, tmp_path):
    data, both = make_data(tmp_path), copy_of(cards, tmp_path)
    rows = tmp_path / "rows.npz"
    output = both / "report.json"
    report = run(both, data, output, "--fit-weights", "--tta", "--predictions", rows)
    described = json.loads((both / "ensemble.json").read_text())
    assert sum(described["weights"]) == pytest.approx(1, abs=1e-5)
    assert described["weights"] != [0.25, 0.75]
    assert report["cross_fitted"] == ["temperature", "member_weights"]
    assert (report["seen"]["temperature"], report["seen"]["member_weights"]) == (1, 1)
    assert report["members"]["weights"] == pytest.approx(
        dict(zip(("first", "second"), described["weights"], strict=True))
    )
    assert report["weights_sha256"] == load(str(both), "cpu").weights_sha256
    assert report["cost"]["file_mb"] > 0
    # Stored temperature and answer sets are those of the stored weights, figures are not.
    assert described["temperature"] == report["calibration"]["single"]["temperature_stored"]
    assert described["conformal_threshold"] == report["conformal"]["threshold"]
    single = report["members"]["single"]
    best = single["figures"][single["best"]]["accuracy"]["value"]
    assert best == max(one["accuracy"]["value"] for one in single["figures"].values())
    accuracy = report["metrics"]["accuracy"]["value"]
    assert single["against_best"]["accuracy"]["value"] == pytest.approx(accuracy - best, abs=2e-6)
    (both / "notes.md").write_text("Two small networks.")
    text = card.render(both)
    assert "member weights cross-fitted over 5 folds" in text
    assert "its best member on these rows" in text
    assert "`ensemble.json` names the folders of its members, ../first, ../second, and" in text
    with pytest.raises(ValueError, match=r"describes an ensemble and is no model by itself; join it first"):
        push_to_hub.model_files(both)
    with pytest.raises(ValueError, match="first is no ensemble, so it has no member weights"):
        run(cards / "first", data, tmp_path / "no.json", "--fit-weights")


class Rows:
    """What a report reads of a split."""

    votes = None

    def __init__(self, targets):
        self.labels = torch.from_numpy(targets)
        self.pixel_sha256 = tuple(str(index) for index in range(len(targets)))


def scored(fitted_here=()):
    """Two members: the first knows the labels of most rows, the second none."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    logits = rng.normal(size=(200, 1, 2, 3))
    logits[np.arange(200), 0, 0, targets] += 2
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return Scored(Rows(targets), ("a", "b", "c"), logs, None, 1.0, np.array([0.5, 0.5]), fitted_here)


def test_cross_fitted_answers_use_weights_of_the_other_folds():
    one = scored(("temperature", "member_weights"))
    logs = one.member_logs[:, 0]
    expected = cross_fit(logs, one.targets, fit_member_weights, mix)
    assert one.logits(False)[:, 0] == pytest.approx(expected)
    assert np.abs(one.logits(False) - one.stored_logits()).max() > 0.1
    report = build_report(one, resamples=50)
    assert report["cross_fitted"] == ["temperature", "member_weights"]
    assert report["metrics"]["loss"]["value"] < build_report(scored(), resamples=50)["metrics"]["loss"]["value"]


def test_a_member_is_compared_on_the_same_rows():
    found = against_members(scored(), ("strong", "weak"), 200, 0)
    assert found["single"]["best"] == "strong"
    assert found["tta"] is None
    difference = found["single"]["against_best"]["accuracy"]
    assert difference["low"] < difference["value"] < difference["high"] < 0.02


def test_it_has_seen_what_its_members_have_and_what_it_was_fitted_on(cards, tmp_path):
    both = copy_of(cards, tmp_path)
    for name, every in (("first", 2), ("second", 4)):
        hashes = [f"{every * 4 * k:016x}" for k in range(3)]
        train = {"n": 3, "sha256": name, "sample": {"every": every, "pixel_sha256": hashes}}
        record_used(both.parent / name, {"train": train, "temperature": {"n": 7}})
    record_used(both, {"temperature": {"n": 9}})
    used = read_used(both)
    assert (used["train"]["n"], used["train"]["sample"]["every"], used["temperature"]) == (6, 4, {"n": 9})
    assert [int(h, 16) for h in used["train"]["sample"]["pixel_sha256"]] == [0, 8, 16, 32]
    join_described(both, tmp_path / "joined")
    assert read_used(tmp_path / "joined") == used
    record_used(both.parent / "second", {})  # trained again: what is said of the ensemble follows
    assert read_used(both)["train"]["sample"]["every"] == 2
