"""Corruptions in known strengths, regions of the face, deletion and insertion, and the two commands around them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fer_hf.attention import grad_cam
from fer_hf.hub import load_model
from fer_hf.labels import FER7, id2label
from fer_hf.map_geometry import cell_grids
from fer_hf.models.configuration_cbam_5cnn import CBAM5CNNConfig
from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_cbam_5cnn import CBAM5CNNForImageClassification
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification
from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification
from tests.evaluation_runs import make_data
from training import attention_report, robustness
from training.attention_regions import deletion_insertion, region_masks, region_shares, saliency_maps
from training.card_text import attention_table, robustness_table
from training.corruptions import CORRUPTIONS

TEMPLATE = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Four smooth pictures, 48×48 grey uint8."""
    coarse = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 200 + 20
    return nn.functional.interpolate(coarse, (48, 48), mode="bilinear").to(torch.uint8)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda one: one.name)
def test_every_strength_changes_more_than_the_one_before(corruption, pictures):
    before = pictures.float()
    changes = [
        float((corruption(pictures, strength, TEMPLATE).float() - before).abs().mean())
        for strength in corruption.strengths
    ]
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert corruption(pictures, corruption.strengths[0], TEMPLATE).dtype == torch.uint8


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda one: one.name)
def test_pictures_are_corrupted_alike_in_pieces(corruption, pictures, monkeypatch):
    whole = corruption(pictures, corruption.strengths[0], TEMPLATE)
    monkeypatch.setattr("training.corruptions.ROWS_AT_ONCE", 3)
    parts = corruption(pictures, corruption.strengths[0], TEMPLATE)
    assert len(pictures) > 3
    assert torch.equal(parts[:3], whole[:3])
    assert parts.shape == whole.shape
    if corruption.name != "noise":  # every piece gets the same noise
        assert torch.equal(parts, whole)


def test_corruptions_do_what_their_units_say(pictures):
    floats = pictures.float()
    assert torch.equal(BY_NAME["dark"](pictures, 0.5, None), (floats / 2).round().to(torch.uint8))
    flat = BY_NAME["contrast"](pictures, 0.1, None).float()
    assert flat.mean((1, 2, 3)).tolist() == pytest.approx(floats.mean((1, 2, 3)).tolist(), abs=0.5)
    grey = torch.full((1, 1, 48, 48), 128, dtype=torch.uint8)
    assert float(BY_NAME["noise"](grey, 10, None).float().std()) == pytest.approx(10, abs=0.5)
    point = torch.zeros(1, 1, 49, 49, dtype=torch.uint8)
    point[..., 24, 24] = 255
    spread = BY_NAME["blur"](point, 1.0, None).float()[0, 0, 24]
    assert float(spread[24]) == pytest.approx(255 / (2 * torch.pi * (49 / 48) ** 2), abs=1)


def test_bars_cover_what_they_name_and_nothing_else(pictures):
    for name, inside, outside in (("eyes covered", (19, 14), (38, 24)), ("mouth covered", (38, 24), (19, 14))):
        changed = (BY_NAME[name](pictures, 0.2, TEMPLATE) != pictures).any(0)[0]
        assert changed[inside]
        assert not changed[outside]
        rows = changed.any(1).nonzero()
        assert int(rows.max() - rows.min()) < 10


def test_regions_lie_on_the_template_apart_from_each_other():
    masks = region_masks(TEMPLATE, 48)
    assert list(masks) == ["brows", "eyes", "mouth"]
    assert sum(mask.astype(int) for mask in masks.values()).max() == 1
    for name, (x, y) in {"eyes": (0.3, 0.4), "mouth": (0.5, 0.8), "brows": (0.7, 0.25)}.items():
        assert masks[name][int(y * 48), int(x * 48)], name


def test_shares_of_a_uniform_map_are_the_areas_and_of_an_empty_one_unknown():
    masks = region_masks(TEMPLATE, 48)
    shares = region_shares(torch.stack([torch.ones(48, 48), torch.zeros(48, 48)]), masks)
    for name, mask in masks.items():
        assert shares[name][0] == pytest.approx(mask.mean())
        assert np.isnan(shares[name][1])


class LeftHalf(nn.Module):
    """Two classes, of which the first is as probable as the left half of the picture is bright."""

    def forward(self, pixels):
        bright = pixels[..., : pixels.shape[-1] // 2].mean((1, 2, 3))
        return SimpleNamespace(logits=torch.stack([8 * bright - 4, torch.zeros_like(bright)], dim=1))


def test_deletion_and_insertion_know_a_right_map_from_a_wrong_one():
    pixels = torch.zeros(1, 1, 32, 32)
    pixels[..., :16] = torch.tensor([0.0, 2.0]).repeat(8)  # stripes, so that blurring takes brightness out of the half
    pixels[..., :16] += 0.3
    left, right = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    left[..., :16], right[..., 16:] = 1, 1
    good = [float(area[0]) for area in deletion_insertion(LeftHalf(), pixels, left)]
    bad = [float(area[0]) for area in deletion_insertion(LeftHalf(), pixels, right)]
    assert good[0] < bad[0]
    assert good[1] > bad[1]
    assert 0 <= good[0] < good[1] <= 1


def test_maps_of_a_model_have_their_shapes_and_leave_no_hooks(tiny_model_path):
    loaded = load_model(tiny_model_path)
    pixels = loaded.processor.normalize_uint8(torch.zeros(2, 1, 48, 48, dtype=torch.uint8))
    maps = saliency_maps(loaded.model, pixels)
    assert list(maps) == ["Grad-CAM", "SE"]
    assert torch.equal(maps["Grad-CAM"][0], grad_cam(loaded.model, pixels))
    assert maps["SE"][0].shape == (2, 24, 24)
    assert not any(module._forward_hooks for module in loaded.model.modules())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def test_the_robustness_command_writes_figures_with_intervals(tiny_model_path, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(robustness, "save_figure", lambda figure, path: path.write_bytes(b"drawn"))
    monkeypatch.setattr(robustness, "CORRUPTIONS", (BY_NAME["dark"], BY_NAME["eyes covered"]))
    output = tmp_path / "new" / "robustness.json"
    arguments = ["--model", str(tiny_model_path), "--data", str(data), "--output", str(output), "--resamples", "50"]
    robustness.main(arguments)
    record = json.loads(output.read_text())
    assert [one["name"] for one in record["corruptions"]] == ["dark", "eyes covered"]
    assert [s["strength"] for s in record["corruptions"][0]["strengths"]] == ["0.75", "0.5", "0.25", "0.1"]
    assert all(s["accuracy"]["low"] <= s["accuracy"]["value"] for s in record["corruptions"][0]["strengths"])
    assert output.with_suffix(".png").read_bytes() == b"drawn"
    value = record["corruptions"][0]["strengths"][0]["accuracy"]["value"]
    assert f"| dark (light left) | 0.75: {100 * value:.1f} |" in robustness_table(record)
    assert "dark (light left): 0.75" in capsys.readouterr().out
    arguments[arguments.index(str(output))] = str(tmp_path)
    with pytest.raises(ValueError, match=r"--output \S+ is a folder; name the file"):
        robustness.main(arguments)


def test_robustness_can_be_of_some_rows_and_says_so(tiny_model_path, data, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "save_figure", lambda figure, path: None)
    monkeypatch.setattr(robustness, "CORRUPTIONS", (BY_NAME["dark"],))
    output = tmp_path / "robustness.json"
    arguments = ["--model", str(tiny_model_path), "--data", str(data), "--output", str(output), "--resamples", "50"]
    robustness.main(arguments)
    whole = json.loads(output.read_text())
    assert f"on the same {whole['n']} rows, one view" in robustness_table(whole)
    robustness.main([*arguments, "--rows", "7"])
    record = json.loads(output.read_text())
    assert (record["n"], record["drawn_from"]) == (7, whole["n"])
    assert "on 7 of these rows, drawn by seed, one view" in robustness_table(record)


def test_the_attention_command_compares_with_area_and_random_maps(tiny_model_path, data, tmp_path, monkeypatch):
    monkeypatch.setattr(attention_report, "save_figure", lambda figure, path: None)
    output = tmp_path / "new" / "attention.json"
    arguments = ["--model", str(tiny_model_path), "--data", str(data), "--rows", "8", "--output", str(output)]
    attention_report.main(arguments)
    record = json.loads(output.read_text())
    assert (record["n"], [one["name"] for one in record["methods"]]) == (8, ["Grad-CAM", "SE"])
    masks = region_masks(TEMPLATE, 48)
    assert record["area"] == {name: pytest.approx(mask.mean(), abs=1e-6) for name, mask in masks.items()}
    for one in record["methods"]:
        difference = one["deletion"]["value"] - record["random"]["deletion"]["value"]
        assert one["deletion_against_random"]["value"] == pytest.approx(difference, abs=2e-6)
        assert 0 < sum(figure["value"] for figure in one["share"].values()) < 1
    assert "| random map |" in attention_table(record)


def test_attention_without_a_face_template_is_refused(tiny_model_path, data, tmp_path):
    loaded = load_model(tiny_model_path)
    loaded.model.save_pretrained(tmp_path)
    FerImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no face template"):
        attention_report.main(["--model", str(tmp_path), "--data", str(data), "--output", str(tmp_path / "a.json")])


def test_each_map_of_an_ensemble_lies_where_the_cells_of_its_own_member_look(tmp_path, monkeypatch):
    """Pooling centres the first of 24 cells between two pixels, a strided convolution on the first one."""
    labels, processor = id2label(FER7), FerImageProcessor(face_template=TEMPLATE)
    small = {"hidden_sizes": (4, 4), "depths": (1, 1)}
    members = [
        CBAM5CNNForImageClassification(CBAM5CNNConfig(id2label=labels, hidden_sizes=(4, 4, 4, 4, 4))),
        ResNetSwishForImageClassification(ResNetSwishConfig(id2label=labels, attention="cbam", **small)),
        ResNetSwishForImageClassification(ResNetSwishConfig(id2label=labels, attention="se", **small)),
    ]
    model = FerEnsembleForImageClassification.from_members([(member.eval(), processor) for member in members])
    placed = []
    place = attention_report.place
    monkeypatch.setattr(attention_report, "place", lambda maps, *where: placed.append(where) or place(maps, *where))
    loaded = SimpleNamespace(model=model, processor=processor)
    pictures = torch.randint(0, 256, (2, 1, 48, 48), dtype=torch.uint8)
    rows = attention_report.measure_rows(loaded, SimpleNamespace(images=pictures), seed=0)
    grids = dict(zip(rows, (grid for grid, _ in placed), strict=True))
    pixels = processor.normalize_uint8(pictures)
    first, second, third = (cell_grids(member, pixels)[24] for member in model.members)
    assert (first.first_px, second.first_px, third.first_px) == (0.5, 0, 0)
    assert (grids["CBAM"], grids["SE"]) == (second, third)


def test_maps_that_are_0_everywhere_have_no_shares(tiny_model_path, data, tmp_path, monkeypatch, capsys):
    one = {name: np.full(3, np.nan) for name in ("brows", "eyes", "mouth")}
    one |= {"deletion": np.full(3, 0.25), "insertion": np.full(3, 0.5)}
    monkeypatch.setattr(attention_report, "measure_rows", lambda *_: {"Grad-CAM": one, "random": one})
    monkeypatch.setattr(attention_report, "save_figure", lambda figure, path: None)
    arguments = ["--model", str(tiny_model_path), "--data", str(data), "--rows", "3"]
    attention_report.main([*arguments, "--output", str(tmp_path / "attention.json")])
    (found,) = json.loads((tmp_path / "attention.json").read_text())["methods"]
    assert found["share"]["eyes"] == {"value": None, "low": None, "high": None}
    assert "Grad-CAM: deletion 0.250, insertion 0.500" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_measured_as_they_answer(tiny_model_path, data, tmp_path, dtype, monkeypatch):
    loaded = load_model(tiny_model_path)
    loaded.model.to(dtype).save_pretrained(tmp_path / "half")
    loaded.processor.save_pretrained(tmp_path / "half")
    monkeypatch.setattr(robustness, "CORRUPTIONS", (BY_NAME["dark"],))
    for command in (robustness, attention_report):
        monkeypatch.setattr(command, "save_figure", lambda figure, path: None)
    arguments = ["--data", str(data), "--resamples", "20"]
    records = {}
    for model in (tiny_model_path, tmp_path / "half"):
        output = tmp_path / "record.json"
        robustness.main(["--model", str(model), *arguments, "--output", str(output)])
        accuracy = json.loads(output.read_text())["clean"]["value"]
        attention_report.main(["--model", str(model), *arguments, "--rows", "4", "--output", str(output)])
        (cam, *_) = json.loads(output.read_text())["methods"]
        records[model] = [accuracy, cam["deletion"]["value"], cam["share"]["eyes"]["value"]]
    assert records[tmp_path / "half"] == pytest.approx(records[tiny_model_path], abs=0.05)
