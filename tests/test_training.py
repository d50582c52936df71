"""Training end to end on a tiny set: what a run writes, that it learns, what it refuses."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from fer_hf.data.loaders import load_lazy
from fer_hf.data.sources import load_source
from fer_hf.hub import load_model
from fer_hf.labels import FER7
from fer_hf.models.image_processing_fer import FerImageProcessor
from tests.tiny_recipe import last_weights, run, same, write
from training import engine, train
from training.files import write_json
from training.optimizers import set_training_mode, trainable_parameters
from training.provenance import read_used


def test_a_run_leaves_model_log_and_recipe(finished):
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    assert {"lr", "train_auc", "validation_accuracy", "validation_precision", "validation_recall"} <= log[0].keys()
    config = json.loads((finished / "best" / "config.json").read_text())
    assert config["dtype"] == "float32"
    weights = load_file(finished / "best" / "model.safetensors")
    assert weights["classifier.weight"].dtype == torch.float16
    used = json.loads((finished / "best" / "training_data.json").read_text())
    assert used["train"]["n"] == 139  # one training row is also a validation row
    assert used["train"]["left_out_as_leaking"] == 1
    assert used["selection"]["n"] == 70
    assert (finished / "recipe.yaml").read_text() == (finished / "best" / "recipe.yaml").read_text()
    # Epochs of less than a second are not worth a checkpoint each; the end is.
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["step_000000024.pt"]


def test_the_tiny_network_learns_its_classes(tiny_data_path, tmp_path):
    recipe = write(tmp_path, epochs=8, augment={})
    run(recipe, tiny_data_path, tmp_path / "out")
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["validation_accuracy"] > 0.6  # chance is 1/7


def test_a_compiled_run_learns_and_saves_as_any_other(tiny_data_path, tmp_path, monkeypatch):
    """The compiler itself takes a minute: its place takes one that changes nothing and counts calls."""
    calls = 0

    def compiled(forward, **options):
        def counted(*inputs, **more):
            nonlocal calls
            calls += 1
            return forward(*inputs, **more)

        return counted

    recipe = write(tmp_path, epochs=1, average={"ema_decay": 0.9})
    run(recipe, tiny_data_path, tmp_path / "plain")
    monkeypatch.setattr(torch, "compile", compiled)
    run(recipe, tiny_data_path, tmp_path / "compiled", "--set", "compile=true")
    assert calls == 139 // 16  # batches; what is judged and saved is the average, which is not compiled
    assert same(last_weights(tmp_path / "plain"), last_weights(tmp_path / "compiled"))


def test_data_given_twice_are_merged():
    arguments = train.parse_arguments(["--recipe", "R", "--data", "a", "b", "--data", "c", "--output", "o"])
    assert arguments.data == ["a", "b", "c"]


def test_keys_set_one_by_one_are_all_set():
    given = ["--set", "epochs=1", "--set", "seed=3", "optimizer.lr=0.1"]
    arguments = train.parse_arguments(["--recipe", "R", "--data", "a", "--output", "o", *given])
    assert arguments.set == ["epochs=1", "seed=3", "optimizer.lr=0.1"]


def test_phases_freeze_and_unfreeze(tiny_model_path, tiny_data_path, tmp_path):
    recipe = write(
        tmp_path, model={"start_from": str(tiny_model_path)}, phases=[{"epochs": 1, "train_last": 0, "lr": 0.1}]
    )
    run(recipe, tiny_data_path, tmp_path / "head")
    start = load_file(tiny_model_path / "model.safetensors")
    after = last_weights(tmp_path / "head")
    changed = {name for name in start if not torch.equal(start[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    recipe = write(
        tmp_path, model={"start_from": str(tiny_model_path)}, phases=[{"epochs": 1, "train_last": 0}, {"epochs": 1}]
    )
    run(recipe, tiny_data_path, tmp_path / "both")
    after = last_weights(tmp_path / "both")
    assert not torch.equal(start["stem.0.0.weight"], after["stem.0.0.weight"])


def test_frozen_batch_norms_keep_their_statistics():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2))
    assert len(trainable_parameters(model, 1)) == 2
    set_training_mode(model)
    assert (model.training, model[1].training) == (True, False)
    trainable_parameters(model, None)
    set_training_mode(model)
    assert model[1].training


def test_a_frozen_backbone_of_random_weights_is_refused(tiny_data_path, tmp_path):
    recipe = write(tmp_path, phases=[{"epochs": 1, "train_last": 0}])
    with pytest.raises(ValueError, match="freezes a backbone of random weights"):
        run(recipe, tiny_data_path, tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"average": {"swa_last": 2}},
        {"loss": {"focal_gamma": 2.0, "class_weights": "inverse"}, "data": {"weighted_sampling": True}},
        {"data": {"labels": "ferplus-soft"}, "augment": {"mixup": 0.2, "cutmix": 1.0}},
        {"data": {"labels": "fer2013-votes"}},
        {"optimizer": {"name": "sgd", "lr": 0.05, "accumulate": 2, "clip_norm": 1.0}, "schedule": {"name": "plateau"}},
        {"data": {"in_memory": False}},
    ],
    ids=["swa", "focal-weighted", "soft-mixed", "label-and-votes", "accumulate-plateau", "from-disk"],
)
def test_every_mechanism_runs(changes, tiny_data_path, tmp_path):
    run(write(tmp_path, epochs=2, **changes), tiny_data_path, tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2
    assert all(math.isfinite(line["train_loss"]) for line in log)


def test_training_figures_are_of_the_mixed_targets(tiny_data_path, tmp_path, monkeypatch):
    def to_first_class(images, targets, options, generator):
        return images, torch.eye(targets.shape[1])[torch.zeros(len(targets), dtype=torch.long)]

    monkeypatch.setattr(engine, "mix", to_first_class)
    run(write(tmp_path), tiny_data_path, tmp_path / "out")
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["train_accuracy"] > 0.9  # as easy as it gets
    assert last["validation_accuracy"] < 0.3


def test_pictures_from_disk_train_to_the_same_weights_as_from_memory(tiny_data_path, tmp_path):
    seen = []
    for in_memory in (True, False):
        recipe = write(tmp_path, epochs=1, data={"in_memory": in_memory})
        run(recipe, tiny_data_path, tmp_path / str(in_memory))
        seen.append(read_used(tmp_path / str(in_memory) / "best"))
        for role in ("train", "selection"):
            assert (seen[-1][role].pop("sha256") is None) != in_memory
    assert seen[0] == seen[1]
    assert same(last_weights(tmp_path / "True"), last_weights(tmp_path / "False"))


def test_what_workers_decode_stays_where_they_can_read_it(tiny_data_path):
    source = load_source(str(tiny_data_path))["validation"]
    split = load_lazy(source, FerImageProcessor(), labels="fer2013", names=FER7)
    moved = split.to(torch.device("meta"))
    assert moved[0][1].device.type == "cpu"
    images, targets = moved.fetch((torch.zeros(2, 1, 48, 48), moved.targets[:2]))
    assert (images.device.type, targets.device.type) == ("meta", "meta")


def test_a_student_learns_from_its_teacher(tiny_model_path, tiny_data_path, tmp_path):
    distill = {"teacher": str(tiny_model_path), "weight": 1.0, "temperature": 1.0}
    run(write(tmp_path, epochs=1, distill=distill), tiny_data_path, tmp_path / "a")
    run(write(tmp_path, epochs=1), tiny_data_path, tmp_path / "b")
    assert not same(last_weights(tmp_path / "a"), last_weights(tmp_path / "b"))
    assert "teacher" not in read_used(tmp_path / "a" / "best")  # this teacher records nothing


def test_a_student_records_what_its_teacher_had_learned_from(tiny_model_path, tiny_data_path, tmp_path):
    teacher = shutil.copytree(tiny_model_path, tmp_path / "teacher")
    write_json(teacher / "training_data.json", {"train": {"n": 7}, "selection": {"n": 3}})
    run(write(tmp_path, epochs=1, distill={"teacher": str(teacher)}), tiny_data_path, tmp_path / "out")
    assert read_used(tmp_path / "out" / "best")["teacher"] == {"n": 7}


def test_a_phase_has_a_teacher_of_its_own(tiny_model_path, tiny_data_path, tmp_path, monkeypatch):
    weights = []
    lerp = torch.lerp
    monkeypatch.setattr(torch, "lerp", lambda a, b, weight: weights.append(weight) or lerp(a, b, weight))
    phases = [{"epochs": 1, "distill": {"teacher": str(tiny_model_path), "weight": 1.0}}, {"epochs": 1}]
    run(write(tmp_path, phases=phases), tiny_data_path, tmp_path / "out")
    assert weights == [1.0] * 8  # the batches of the first phase; the second has no teacher


def test_a_fresh_start_forgets_what_was_fitted_to_the_old_weights(tiny_model_path, tiny_data_path, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(tiny_model_path, start)
    config = json.loads((start / "config.json").read_text())
    config |= {"temperature": 0.7, "conformal_threshold": 0.4, "conformal_coverage": 0.9}
    (start / "config.json").write_text(json.dumps(config))
    run(write(tmp_path, epochs=1, model={"start_from": str(start)}), tiny_data_path, tmp_path / "out")
    config = load_model(tmp_path / "out" / "best").model.config
    assert (config.temperature, config.conformal_threshold, config.conformal_coverage) == (1.0, None, None)


def test_a_model_records_what_the_weights_it_started_from_had_seen(tiny_model_path, tiny_data_path, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(tiny_model_path, start)
    run(write(tmp_path, epochs=1, model={"start_from": str(start)}, select="last"), tiny_data_path, tmp_path / "one")
    used = read_used(tmp_path / "one" / "best")
    assert set(used) == {"train"}  # the start records nothing, and nothing was chosen
    chosen_on = {"n": 3, "sha256": "other", "sample": {"every": 1, "pixel_sha256": ["0" * 16]}}
    write_json(start / "training_data.json", {"train": {"n": 7}, "selection": chosen_on})
    run(write(tmp_path, epochs=1, model={"start_from": str(start)}, select="last"), tiny_data_path, tmp_path / "two")
    used = read_used(tmp_path / "two" / "best")
    assert (used["start"], used["selection"]) == ({"n": 7}, chosen_on)
    run(write(tmp_path, epochs=1, model={"start_from": str(start)}), tiny_data_path, tmp_path / "three")
    both = read_used(tmp_path / "three" / "best")["selection"]
    assert (both["n"], len(both["sample"]["pixel_sha256"])) == (73, 71)


def test_with_a_start_goes_its_kind_and_its_processor(tiny_model_path, tiny_data_path, tmp_path):
    for changes in ({"model": {"type": "fer_cbam_5cnn"}}, {"processor": {"face_margin": 0.5}}):
        model = changes.get("model", {}) | {"start_from": str(tiny_model_path)}
        with pytest.raises(ValueError, match=r"goes on with .* as it is, its fer_resnet_swish and its processor; drop"):
            run(write(tmp_path, **(changes | {"model": model})), tiny_data_path, tmp_path / "out")


def test_a_dry_run_shows_and_writes_no_checkpoint(tiny_data_path, tmp_path, capsys):
    run(write(tmp_path), tiny_data_path, tmp_path / "out", "--dry-run")
    out = capsys.readouterr().out
    assert "batch_size: 16" in out
    assert "an epoch of 8 steps" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dry_run.png"]


def test_what_cannot_train_is_refused_in_one_sentence(tiny_data_path, tmp_path):
    with pytest.raises(ValueError, match="batch_size 500 is larger than the training set of 139"):
        run(write(tmp_path, batch_size=500), tiny_data_path, tmp_path / "out")
    with pytest.raises(ValueError, match="--tracker notatracker"):
        train.main([
            "--recipe", str(write(tmp_path)), "--data", str(tiny_data_path), "--output", str(tmp_path / "o"),
            "--tracker", "notatracker",
        ])  # fmt: skip


def test_the_data_is_audited_before_it_trains(tiny_data_path, tmp_path, capsys):
    run(write(tmp_path), tiny_data_path, tmp_path / "out", "--dry-run")
    assert "audit, leak: " in capsys.readouterr().out  # one training row is also a validation row


def test_a_phase_augments_in_its_own_way(tiny_data_path, tmp_path, monkeypatch):
    drawn = []
    augment = engine.augment
    monkeypatch.setattr(
        engine, "augment", lambda images, options, g: drawn.append(options) or augment(images, options, g)
    )
    phases = [{"epochs": 1}, {"epochs": 1, "augment": {"rotation_deg": 5}}]
    run(write(tmp_path, phases=phases, augment={"flip": 0.5}), tiny_data_path, tmp_path / "out")
    half = len(drawn) // 2
    assert {(one.flip, one.rotation_deg) for one in drawn[:half]} == {(0.5, 0.0)}
    assert {(one.flip, one.rotation_deg) for one in drawn[half:]} == {(0.0, 5.0)}  # whole, not merged
