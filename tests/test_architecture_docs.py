"""Published architectures: their size and cost, pinned, and the page and figures made from them."""

import re
from pathlib import Path

import pytest
from torch import nn

from training.architecture import Stage, count_flops, count_parameters, published_systems, trace
from training.config import load_recipe
from training.diagrams import DOCS, draw, table, with_table

RECIPES = sorted((Path(__file__).parent.parent / "training" / "recipes" / "published").glob("*.yaml"))


@pytest.fixture(scope="module")
def systems() -> dict[str, nn.Module]:
    return published_systems()


# Convolutions and matrix products of one face, in FLOPs; a multiply-add counts as two.
@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [
        ("affectnet_se", 4_220_113, 769_491_904),
        ("cbam_5cnn", 14_642_097, 1_065_308_596),
        ("resnet_swish", 11_301_319, 2_494_336_512),
        ("resnet50_cbam", 26_038_887, 1_511_984_652),
        ("ensemble_of_three", 8_688_353, 112_232_096),
    ],
)
def test_parameters_and_flops_of_published_systems(systems, name, parameters, flops):
    assert count_parameters(systems[name]) == parameters
    assert count_flops(systems[name]) == flops


def test_every_system_of_the_published_table_is_there(systems):
    published = (
        "affectnet_se cbam_5cnn efficientnet_b3 resnet_swish efficientnet_b0 mobilenet_v2 se_mobilenet_v2 "
        "efficientnet_b0_plain ensemble_of_three resnet50_cbam resnet50_se"
    )
    assert set(systems) == set(published.split())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_name_themselves_and_normalise_every_channel(systems, path):
    recipe = load_recipe(path)
    model = systems[path.stem.removesuffix("_scratch")]
    assert recipe.name == path.stem
    assert len(recipe.processor.image_mean) == len(recipe.processor.image_std) == model.config.num_channels
    assert recipe.model.type == model.config.model_type


def test_frozen_phases_leave_what_their_comments_say(systems):
    from training.optimizers import trainable_parameters

    head = {"attention.reduce", "attention.expand", "classifier"}
    for name, wanted in (("se_mobilenet_v2", head), ("mobilenet_v2", {"classifier"})):
        model = systems[name]
        phase = load_recipe(RECIPES[0].parent / f"{name}.yaml").phases[0]
        learning = {id(parameter) for parameter in trainable_parameters(model, phase.train_last)}
        modules = {key.rpartition(".")[0] for key, parameter in model.named_parameters() if id(parameter) in learning}
        assert modules == wanted
    model = systems["efficientnet_b0"]
    phase = load_recipe(RECIPES[0].parent / "efficientnet_b0.yaml").phases[0]
    learning = {id(parameter) for parameter in trainable_parameters(model, phase.train_last)}
    assert all((id(p) in learning) == (not name.startswith("backbone.")) for name, p in model.named_parameters())


def test_a_trace_has_every_stage_and_parameter_once(systems):
    stages = trace(systems["cbam_5cnn"])
    assert [stage.shape for stage in stages] == [
        (1, 48, 48), (64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3), (512, 3, 3), (4608,), (7,),
    ]  # fmt: skip
    assert stages[3] == Stage(
        "blocks.2", "3 convolutions, CBAM, max pooling", (256, 6, 6), 1484386, "convolution", True
    )
    assert stages[6] == Stage("flatten", "every cell of every channel", (4608,), 0, "pooling")
    for name, model in systems.items():
        assert sum(stage.parameters for stage in trace(model)) == count_parameters(model), name
    gated = {stage.name for stage in trace(systems["resnet50_se"]) if stage.gated}
    assert gated == {f"backbone.layer{stage}" for stage in range(1, 5)}
    assert [stage.what for stage in trace(systems["ensemble_of_three"])][1:] == [
        "mobilenetv2_100", "mobilenetv2_100 with SE", "efficientnet_b0", "weighted mean of the probabilities",
    ]  # fmt: skip


def test_the_page_is_what_the_command_writes(systems):
    page = (DOCS / "models.md").read_text()
    assert with_table(page, table(systems)) == page
    assert {path.stem for path in (DOCS / "figures" / "models").glob("*.svg")} == set(systems)
    with pytest.raises(ValueError, match="lacks <!-- systems:begin -->"):
        with_table("no marks", "rows")


def test_the_figure_in_the_docs_says_what_the_network_is(systems, tmp_path):
    draw("cbam_5cnn", systems["cbam_5cnn"], tmp_path / "a.svg")
    draw("cbam_5cnn", systems["cbam_5cnn"], tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    drawn, kept = (
        re.findall(r">([^<>]+)</text>", path.read_text())
        for path in (tmp_path / "a.svg", DOCS / "figures" / "models" / "cbam_5cnn.svg")
    )
    assert drawn == kept
    assert drawn[:2] == ["cbam_5cnn", "14,642,097 parameters · 1,065.3 MFLOPs a face"]
    assert "3 convolutions, CBAM, max pooling" in drawn
