"""Recipes: what is allowed, what is refused, and that every one in the project parses."""

from collections import Counter
from pathlib import Path

import datasets
import pytest
import yaml

from fer_hf.data.sources import load_source
from fer_hf.labels import FER7
from tests.data_folders import class_folders
from training.config import Phase, Recipe, build, dump_recipe, load_recipe

RECIPES = sorted((Path(__file__).parent.parent / "training" / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_parses_and_survives_being_written_out(path):
    recipe = load_recipe(path)
    assert recipe.name
    again = build(Recipe, yaml.safe_load(dump_recipe(recipe)))
    assert again == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "epoch": 3}, r"unknown key epoch; did you mean epochs\?"),
        ({"name": "a", "optimizer": {"learning_rat": 1}}, r"unknown key optimizer\.learning_rat; known are name, lr"),
        ({"name": "a", "augment": {"rotation": 3}}, r"did you mean augment\.rotation_deg\?"),
        ({"epochs": 3}, "key name is required"),
        ({"name": "a", "epochs": "many"}, "epochs must be int; 'many' was given"),
        ({"name": "a", "epochs": True}, "epochs must be int; True was given"),
        (
            {"name": "a", "early_stopping": 0},
            "early_stopping counts epochs, from 1; 0 was given: leave it out for none",
        ),
        ({"name": "a", "phases": [{"epochs": 0}]}, "at least one epoch"),
        ({"name": "a", "data": {"labels": "fer"}}, "choose one of fer2013"),
        ({"name": "a", "average": {"ema_decay": 0.9, "swa_last": 2}}, "exclude each other"),
        ({"name": "a", "augment": {"flip": 2}}, "augment.flip is a probability"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        build(Recipe, values)


def test_values_are_read_as_their_fields_say(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: a\noptimizer: {lr: 1e-4}\naugment: {erasing_area: [0, 1]}\nphases: [{epochs: 2, lr: 1}]\n")
    recipe = load_recipe(path, ["seed=3", "schedule.name=step", "schedule.step_epochs=[1]"])
    assert recipe.optimizer.lr == 1e-4  # which YAML 1.1 reads as text
    assert recipe.augment.erasing_area == (0.0, 1.0)
    assert recipe.phases == [Phase(epochs=2, lr=1.0)]
    assert recipe.epochs == 2
    assert (recipe.seed, recipe.schedule.step_epochs) == (3, (1.0,))


def test_overrides_reach_into_lists(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: a\nphases: [{epochs: 2}, {epochs: 3}]\n")
    recipe = load_recipe(path, ["phases.1.epochs=4", "phases.0.lr=0.1"])
    assert (recipe.epochs, recipe.phases) == (6, [Phase(epochs=2, lr=0.1), Phase(epochs=4)])


def test_phases_stand_for_epochs_and_a_file_that_says_both_must_mean_the_same(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: a\nepochs: 24\n")
    assert load_recipe(path, ["phases=[{epochs: 1}]"]).epochs == 1
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(dump_recipe(load_recipe(path)))
    assert load_recipe(dumped) == load_recipe(path)
    assert load_recipe(dumped, ["phases.0.epochs=30"]).epochs == 30
    dumped.write_text(dumped.read_text().replace("\nepochs: 24", "\nepochs: 30"))
    with pytest.raises(ValueError, match="epochs is 30, and the phases have 24 in all"):
        load_recipe(dumped)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs=9", r"epochs is 9, and the phases have 2 in all: set theirs, such as phases\.0\.epochs=20"),
        ("data=[", r"'data=\[': the value is not valid YAML"),
        ("name.lr=1", "'name.lr=1' leads into something that has no such part"),
        ("phases.3.lr=1", "'phases.3.lr=1' leads into something that has no such part"),
        ("phases.first.lr=1", "'phases.first.lr=1' leads into something that has no such part"),
    ],
)
def test_overrides_that_fit_nothing_are_named(text, message, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: a\nphases: [{epochs: 2}]\n")
    with pytest.raises(ValueError, match=message):
        load_recipe(path, [text])


def published(name: str) -> Recipe:
    return load_recipe(next(path for path in RECIPES if path.parent.name == "published" and path.stem == name))


def classes_read(folder: Path, recipe: Recipe) -> dict[str, int]:
    (split,) = load_source(folder, recipe.data.source).values()
    return Counter(split.features["label"].names[label] for label in split["label"])


TEN = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


@pytest.mark.parametrize("name", ["cbam_5cnn", "efficientnet_b3"])
def test_seven_of_the_ten_labels_of_fer24_ck_are_used(name, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = class_folders(tmp_path / "FER24_CK", dict.fromkeys(TEN, 2))
    assert classes_read(folder, published(name)) == dict.fromkeys(FER7, 2)


def test_contempt_of_affectnet_becomes_disgust(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = class_folders(tmp_path / "affectnet", dict.fromkeys(TEN[:8], 2))
    assert classes_read(folder, published("resnet_swish")) == dict.fromkeys(FER7, 2) | {"disgust": 4}


@pytest.mark.parametrize(
    ("learned", "judged"), [("ferplus-soft", "ferplus-majority"), ("fer2013-votes", "fer2013"), ("fer2013", "fer2013")]
)
def test_distributions_are_judged_by_labels(learned, judged):
    assert build(Recipe, {"name": "a", "data": {"labels": learned}}).data.validation_labels == judged


def test_errors_name_the_file(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(ValueError, match=r"bad\.yaml is not valid YAML"):
        load_recipe(tmp_path / "bad.yaml")
    with pytest.raises(ValueError, match=r"none\.yaml: no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="is no override"):
        load_recipe(RECIPES[0], ["epochs"])
