"""training/eval.py on a made data set and a tiny model: figures, provenance, refusals, files."""

import argparse
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi
from PIL import Image as PILImage
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from transformers import AutoImageProcessor, AutoModelForImageClassification

import fer_hf  # noqa: F401 - makes the Auto classes know our models
from fer_hf import figures
from fer_hf.data.sources import SourceOptions
from fer_hf.figures import save_figure
from fer_hf.hub import load_model
from fer_hf.labels import FER7
from fer_hf.metrics import softmax
from tests.data_folders import png, write_files
from tests.evaluation_runs import ROWS, WITHOUT_MAJORITY, make_data, run
from training import cost, provenance
from training import eval as evaluation
from training.cost import count_mflops, count_parameters
from training.files import write_json
from training.intervals import bootstrap, resample
from training.report import _statistics, first_copies, most_confused
from training.scoring import load, load_split, placeless, source_text
from training.views import NAMED, View, parse_views


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def evaluated(tiny_model_path, data, tmp_path_factory):
    """The report on FER2013 labels with flip averaging, its folder, and the saved predictions."""
    folder = tmp_path_factory.mktemp("evaluated")
    report = run(
        tiny_model_path, data, folder / "report.json", "--tta", "--predictions", folder / "rows.npz", draw=save_figure
    )
    return report, folder, dict(np.load(folder / "rows.npz"))


def test_figures_equal_scikit_learn_on_the_saved_rows(evaluated):
    report, _, rows = evaluated
    for metrics, key in ((report["metrics"], "probabilities"), (report["metrics_tta"], "probabilities_tta")):
        targets, predictions = rows["targets"], rows[key].argmax(1)
        probabilities = softmax(np.log(rows[key].astype(float)))  # sums to 1 in float64
        expected = {"accuracy": sklearn_metrics.accuracy_score(targets, predictions)}
        for how in ("macro", "weighted"):
            names = (f"{how}_precision", f"{how}_recall", f"{how}_f1")
            values = sklearn_metrics.precision_recall_fscore_support(targets, predictions, average=how, zero_division=0)
            expected |= dict(zip(names, values[:3], strict=True))
        expected["auc"] = sklearn_metrics.roc_auc_score(targets, probabilities, multi_class="ovr")
        expected["loss"] = sklearn_metrics.log_loss(targets, probabilities, labels=range(7))
        for name, value in expected.items():
            assert metrics[name]["value"] == pytest.approx(value, abs=1e-4), name
            assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"], name


def test_predictions_are_those_of_the_plain_model_and_of_the_mean_over_views(evaluated, tiny_model_path, data):
    _, _, rows = evaluated
    model = AutoModelForImageClassification.from_pretrained(tiny_model_path).eval()
    processor = AutoImageProcessor.from_pretrained(tiny_model_path)
    images = [row["image"] for row in load_split([str(data)], "validation", SourceOptions())]
    with torch.no_grad():
        pixels = processor(images)["pixel_values"]
        plain, mirrored = (model(view).logits.softmax(1).numpy() for view in (pixels, pixels.flip(-1)))
    assert rows["probabilities"] == pytest.approx(plain, abs=1e-5)
    assert rows["probabilities_tta"] == pytest.approx((plain + mirrored) / 2, abs=1e-5)
    assert rows["row_ids"][:2].tolist() == ["validation/000000", "validation/000001"]


def test_the_head_says_what_was_scored_and_hides_where(evaluated, data, tiny_model_path):
    report, folder, _ = evaluated
    assert (report["n"], report["n_distinct"], report["rows_left_out"]) == (ROWS, ROWS - 1, 0)
    assert report["command"] == (
        f"python training/eval.py --model model_cards/{tiny_model_path.name} --data DATA --split validation "
        "--labels fer2013 --tta flip --resamples 200 --output report.json"
    )
    assert report["seen"] == dict.fromkeys(("train", "start", "teacher", "selection", "temperature", "member_weights"))
    assert report["cross_fitted"] == []
    assert "members" not in report
    text = (folder / "report.json").read_text()
    assert str(data) not in text
    assert str(tiny_model_path.parent) not in text


def test_confusion_and_classes_agree_with_the_accuracy(evaluated):
    report, _, _ = evaluated
    confusion = np.array(report["confusion"])
    assert confusion.sum() == ROWS
    assert np.trace(confusion) / ROWS == pytest.approx(report["metrics"]["accuracy"]["value"], abs=1e-6)
    assert [one["label"] for one in report["per_class"]] == list(FER7)
    assert [one["n"] for one in report["per_class"]] == confusion.sum(axis=1).tolist()
    worst = report["most_confused"][0]
    true, predicted = FER7.index(worst["true"]), FER7.index(worst["predicted"])
    assert worst["n"] == confusion[true, predicted] == (confusion - np.diag(np.diag(confusion))).max()
    assert report["metrics"]["accuracy_distinct"]["value"] != report["metrics"]["accuracy"]["value"]


def test_majority_labels_leave_out_rows_and_compare_with_the_raters(tiny_model_path, data, tmp_path):
    drawn = []
    more = ("--labels", "ferplus-majority")
    report = run(
        tiny_model_path, data, tmp_path / "report_ferplus.json", *more, draw=lambda _, path: drawn.append(path.name)
    )
    assert (report["n"], report["rows_left_out"]) == (ROWS - WITHOUT_MAJORITY, WITHOUT_MAJORITY)
    assert 0 < report["metrics"]["js_divergence"]["value"] < 1
    assert report["metrics_tta"] is None
    assert drawn == ["confusion_ferplus.png", "reliability_ferplus.png", "per_class_ferplus.png"]


def test_the_same_command_gives_the_same_report(evaluated, tiny_model_path, data, tmp_path):
    again = run(tiny_model_path, data, tmp_path, "--tta")
    assert again | {"seconds": None} == evaluated[0] | {"seconds": None}


def test_several_models_share_one_command(tiny_model_path, data, tmp_path):
    other = shutil.copytree(tiny_model_path, tmp_path / "other")
    models = ("--model", tiny_model_path, other)
    run(tiny_model_path, data, tmp_path / "out", *models, "--predictions", tmp_path / "rows")
    for name in (tiny_model_path.name, "other"):
        assert json.loads((tmp_path / "out" / name / "report.json").read_text())["model"] == name
        assert (tmp_path / "rows" / f"{name}.npz").is_file()


def test_several_data_sets_are_scored_as_one(tiny_model_path, data, tmp_path):
    write_files(tmp_path / "more", {f"validation/{name}/1.png": png(k) for k, name in enumerate(FER7)})
    one = run(tiny_model_path, data, tmp_path / "one.json")
    both = run(tiny_model_path, data, tmp_path / "both.json", "--data", tmp_path / "more")
    assert both["n"] == one["n"] + 7


def test_classes_without_rows_have_no_recall_and_rare_ones_no_draws_that_count_against_them(tiny_model_path, tmp_path):
    files = {f"validation/{name}/{k}.png": png(k) for name in FER7[:3] for k in range(2 if name == FER7[1] else 20)}
    write_files(tmp_path / "few", files)
    report = run(tiny_model_path, tmp_path / "few", tmp_path / "report.json", draw=save_figure)
    assert report["per_class"][5]["recall"] == {"value": None, "low": None, "high": None}
    probabilities = np.eye(7)[[0] * 20 + [1] * 2 + [2] * 20]
    weights = np.concatenate(list(resample(42, 200, 0)))
    assert (weights[:, 20:22].sum(1) == 0).any()
    rows = SimpleNamespace(pixel_sha256=[str(k) for k in range(42)], votes=None)
    scored = SimpleNamespace(targets=probabilities.argmax(1), names=FER7, split=rows)
    found = bootstrap(_statistics(scored, probabilities), 42, 200, 0)
    assert [one["low"] for one in found["class_recall"][:3]] == [1, 1, 1]
    assert [one["low"] for one in found["class_f1"][:3]] == [1, 1, 1]


def test_models_of_one_name_are_refused_before_one_report_overwrites_the_other(tiny_model_path, data, tmp_path):
    runs = [shutil.copytree(tiny_model_path, tmp_path / name / "best") for name in "ab"]
    with pytest.raises(ValueError, match="several models are called best"):
        run(tiny_model_path, data, tmp_path / "out", "--model", *runs)
    assert not (tmp_path / "out").exists()


def test_data_are_read_as_the_source_says_and_training_that_read_them_otherwise_is_told(
    tiny_model_path, tmp_path, capsys
):
    write_files(tmp_path / "numbered", {f"validation/{k}/{k}.png": png(k) for k in range(7)})
    folder = shutil.copytree(tiny_model_path, tmp_path / "model")
    (folder / "recipe.yaml").write_text("data: {source: {numbering: affectnet, remap: {}, seed: 1}}\n")
    asked = ("--labels", "dataset")
    labels = {}
    for numbering in ("auto", "affectnet"):
        output = tmp_path / f"{numbering}.json"
        more = ("--source", f"numbering={numbering}") if numbering != "auto" else ()
        report = run(folder, tmp_path / "numbered", output, *asked, *more, "--predictions", tmp_path / "rows.npz")
        labels[numbering] = np.load(tmp_path / "rows.npz")["targets"].tolist()
        assert (" --source numbering=affectnet " in report["command"]) == bool(more)
        told = "learned from data read with numbering=" in capsys.readouterr().err
        assert told == (not more)
    names = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry")
    assert labels == {"auto": list(range(7)), "affectnet": [FER7.index(name) for name in names]}


def test_fitting_stores_what_the_reloaded_model_answers_with(tiny_model_path, data, tmp_path):
    folder = shutil.copytree(tiny_model_path, tmp_path / "model")
    before = json.loads((folder / "config.json").read_text())
    report = run(folder, data, tmp_path / "report.json", "--fit-temperature")
    stored = json.loads((folder / "config.json").read_text())
    changed = {key for key in stored if stored[key] != before[key]}
    assert changed == {"temperature", "conformal_threshold", "conformal_coverage"}
    calibration = report["calibration"]["single"]
    assert stored["temperature"] == calibration["temperature_stored"] == calibration["temperature_fitted"]
    assert calibration["ece"]["stored"] == calibration["ece"]["fitted"]
    assert stored["conformal_threshold"] == report["conformal"]["threshold"]
    assert provenance.read_used(folder)["temperature"]["n"] == ROWS
    assert report["seen"]["temperature"] == 1
    assert report["cross_fitted"] == ["temperature"]
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    output = model(torch.zeros(1, 1, 48, 48))
    assert torch.allclose(output.logits * stored["temperature"], output.raw_logits)


def test_fitting_that_is_broken_off_has_recorded_its_rows(tiny_model_path, data, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_model_path, tmp_path / "model")

    def break_off(path, value):
        raise KeyboardInterrupt(path.name)

    monkeypatch.setattr(evaluation, "write_json", break_off)
    with pytest.raises(KeyboardInterrupt, match=r"config\.json"):
        run(folder, data, tmp_path / "report.json", "--fit-temperature")
    assert provenance.read_used(folder)["temperature"]["n"] == ROWS


def test_a_split_the_model_has_seen_is_no_test(tiny_model_path, data, tmp_path):
    folder = shutil.copytree(tiny_model_path, tmp_path / "model")
    run(folder, data, tmp_path / "report.json", "--fit-temperature")
    with pytest.raises(
        ValueError, match=r"100% of this split's pictures served model for temperature, so it is no test"
    ):
        run(folder, data, tmp_path / "report.json", "--split", "test")
    with pytest.raises(ValueError, match="fit it on validation"):
        run(tiny_model_path, data, tmp_path / "report.json", "--split", "test", "--fit-temperature")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "train"], r"has no split 'train'; it has validation, test: .*--source splits\.train=0\.25"),
        (["--source", "number=raf-db"], r"unknown key --source number; did you mean --source numbering\?"),
        (["--source", "classes=5"], "--source classes cannot be set here: the model has its own"),
        (["--tta", "spin"], "'spin' is no view"),
        (["--model", "a", "b", "--output", "one.json"], "2 models need a folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tiny_model_path, data, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        run(tiny_model_path, data, tmp_path / "report.json", *more)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_scored_as_they_answer(tiny_model_path, data, tmp_path, dtype):
    loaded = load(str(tiny_model_path), "cpu")
    loaded.model.to(dtype).save_pretrained(tmp_path / "half")
    loaded.processor.save_pretrained(tmp_path / "half")
    run(tmp_path / "half", data, tmp_path / "report.json", "--tta", "ten", "--predictions", tmp_path / "rows.npz")
    rows = np.load(tmp_path / "rows.npz")
    half = load(str(tmp_path / "half"), "cpu")
    images = [row["image"] for row in load_split([str(data)], "validation", SourceOptions())]
    with torch.inference_mode():
        logits = half.model(half.processor(images)["pixel_values"].to(dtype)).raw_logits
    assert logits.dtype == dtype
    assert rows["probabilities"] == pytest.approx(softmax(logits.float().numpy()), abs=1e-3)


def test_a_model_on_the_hub_says_what_it_has_seen(hub, tiny_model_path, data, tmp_path, capsys):
    folder = shutil.copytree(tiny_model_path, tmp_path / "model")
    run(folder, data, tmp_path / "report.json", "--fit-temperature")
    (folder / "recipe.yaml").write_text("data: {source: {numbering: affectnet}}\n")
    HfApi().create_repo("user/model")
    HfApi().upload_folder(repo_id="user/model", folder_path=folder)
    report = run("user/model", data, tmp_path / "report.json")
    assert report["seen"]["temperature"] == 1
    assert "user/model learned from data read with numbering=affectnet" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"100% of this split's pictures served user/model for temperature"):
        run("user/model", data, tmp_path / "report.json", "--split", "test")


def test_a_cached_model_is_scored_while_the_hub_is_away(hub, tiny_model_path, data, tmp_path, capsys):
    folder = shutil.copytree(tiny_model_path, tmp_path / "model")
    run(folder, data, tmp_path / "report.json", "--fit-temperature")
    HfApi().create_repo("user/model")
    HfApi().upload_folder(repo_id="user/model", folder_path=folder)
    load_model("user/model")
    hub.fail(".*", drop=True, times=100)
    report = run("user/model", data, tmp_path / "report.json")
    assert report["seen"]["temperature"] is None
    assert "user/model: what its repository says of the data it has seen cannot be had now" in capsys.readouterr().err


def test_a_split_without_a_label_is_said(tiny_model_path, data, tmp_path):
    (tmp_path / "data").mkdir()
    rows = Dataset.from_parquet(str(data / "validation.parquet"), cache_dir=tmp_path / "cache")
    undecided = rows.select(range(ROWS - WITHOUT_MAJORITY, ROWS))
    undecided.to_parquet(tmp_path / "data" / "validation.parquet")
    with pytest.raises(ValueError, match=r"none of the 6 rows of its split validation has a label of ferplus-majority"):
        run(tiny_model_path, tmp_path / "data", tmp_path / "report.json", "--labels", "ferplus-majority")


def test_records_name_no_places_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert placeless(f"{tmp_path}/runs/a/best") == "runs/a/best"
    assert placeless("/root/runs/a/best") == "a/best"
    assert [placeless(path) for path in ("runs/a", "user/name")] == ["runs/a", "user/name"]
    asked = argparse.Namespace(votes="/root/votes.csv", source=["leave_out=/root/draws/a.json", "splits={test: 0.5}"])
    assert source_text(asked) == " --votes VOTES --source leave_out=draws/a.json 'splits={test: 0.5}'"


def test_figures_are_written_beside_the_report_at_a_readable_size(evaluated):
    _, folder, _ = evaluated
    for name in ("confusion", "reliability", "per_class"):
        with PILImage.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 400
            assert "Software" not in picture.info


def test_confusion_figure_writes_shares_of_the_true_class():
    figure = figures.confusion_figure(np.array([[3, 1], [0, 250]]), ("sad", "happy"), "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25", "100"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["sad  (4)", "happy  (250)"]


def test_curves_figure_shows_what_the_log_has():
    log = [{"epoch": e, "lr": 0.1, "train_loss": 2 / e, "validation_loss": 3 / e} for e in (1, 2, 3)]
    figure = figures.curves_figure(log, "run")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["loss", "learning rate"]
    assert shown[0].lines[1].get_ydata().tolist() == [3.0, 1.5, 1.0]


def test_intervals_of_a_share_match_the_exact_ones():
    right = (np.arange(200) < 150).astype(float)
    figure = bootstrap(lambda weights: {"share": weights @ right / 200}, 200)["share"]
    exact = binomtest(150, 200).proportion_ci(method="wilson")
    assert figure["value"] == 0.75
    assert (figure["low"], figure["high"]) == pytest.approx((exact.low, exact.high), abs=0.01)


def test_resamples_hold_as_many_rows_as_there_are_and_follow_the_seed():
    draws = np.concatenate(list(resample(7, 30, seed=1)))
    assert draws.shape == (30, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert np.array_equal(draws, np.concatenate(list(resample(7, 30, seed=1))))
    assert not np.array_equal(draws, np.concatenate(list(resample(7, 30, seed=2))))


def test_most_confused_names_pairs_by_their_rows():
    pairs = most_confused(np.array([[5, 3, 0], [1, 9, 0], [0, 0, 4]]), ("a", "b", "c"))
    assert pairs == [
        {"true": "a", "predicted": "b", "n": 3, "share": 0.375},
        {"true": "b", "predicted": "a", "n": 1, "share": 0.1},
    ]


def test_copies_count_once():
    assert first_copies(("x", "y", "x", "z", "y")).tolist() == [True, True, False, True, False]


def test_views_look_where_they_say():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(View(flip=True)(picture), picture.flip(-1))
    assert torch.allclose(View(rotate=180)(picture), picture.flip(-1, -2), atol=1e-4)
    assert torch.allclose(View(x=0.25)(picture)[..., :3], picture[..., 1:], atol=1e-4)
    assert torch.allclose(View(scale=0.5)(picture)[0, 0, 1:3, 1:3].mean(), picture.mean(), atol=1e-4)
    assert parse_views("id,flip") == NAMED["flip"]
    assert (len(parse_views("five")), len(set(parse_views("ten")))) == (5, 10)


def test_cost_counts_weights_once_and_a_multiply_and_an_add_as_two(tiny_model_path):
    model = load(str(tiny_model_path), "cpu").model
    buffers = sum(buffer.numel() for buffer in model.buffers())
    assert count_parameters(model) == sum(value.numel() for value in model.state_dict().values()) - buffers
    cells = {48: 48 * 48, 24: 24 * 24}
    convolutions = 9 * (1 * 8 + 8 * 8 + 8 * 8) * cells[48] + (9 * (8 * 16 + 16 * 16) + 8 * 16) * cells[24]
    dense = 2 * 4 * (8 + 16) + 16 * 7  # two gates of four squeezed channels, and the classifier
    assert count_mflops(model) == pytest.approx(2 * (convolutions + dense) / 1e6)


def test_cost_is_measured_again_and_nothing_else_of_the_report_changes(tiny_model_path, data, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_path, folder)
    with pytest.raises(ValueError, match=r"report\.json is missing; score the model first"):
        cost.main(["--model", str(folder)])
    before = run(folder, data, folder / "report.json")
    monkeypatch.setattr(cost, "measure_ms_per_face", lambda model: 7.0)
    cost.main(["--model", str(folder)])
    after = json.loads((folder / "report.json").read_text())
    assert (before["cost"]["ms_per_face"], after["cost"]["ms_per_face"]) == (1.0, 7.0)
    assert {key: value for key, value in after.items() if key != "cost"} == {
        key: value for key, value in before.items() if key != "cost"
    }
    write_json(folder / "report.json", after | {"weights_sha256": "0" * 64})
    with pytest.raises(ValueError, match="is of other weights"):
        cost.main(["--model", str(folder)])
