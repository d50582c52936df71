"""Classifiers on timm backbones: timm's own networks, unchanged but for what the config asks."""

import pytest
import timm
import torch
from torch import nn
from transformers import AutoModelForImageClassification

from fer_hf.labels import FER7, id2label
from fer_hf.models.configuration_timm import SEEfficientNetConfig, TimmConfig
from fer_hf.models.layers_timm import gated_residual, residual_blocks
from fer_hf.models.modeling_timm import SEEfficientNetForImageClassification, TimmForImageClassification

LABELS = id2label(FER7)


def config(**values) -> TimmConfig:
    return TimmConfig(**{"id2label": LABELS, "backbone": "test_efficientnet", "image_size": 48} | values)


def build(**values) -> TimmForImageClassification:
    torch.manual_seed(0)
    return TimmForImageClassification(config(**values)).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [("efficientnet_b0", 4007548), ("efficientnet_b3", 10696232), ("mobilenetv2_100", 2223872), ("resnet50", 23508032)],
)
def test_backbones_have_as_many_parameters_as_timms(backbone, parameters):
    with torch.device("meta"):
        reference = timm.create_model(backbone)
        model = TimmForImageClassification(config(backbone=backbone, stem_stride=1))
    assert count(model.backbone) == count(reference) - count(reference.get_classifier()) == parameters


def test_grey_backbones_lack_two_thirds_of_the_first_convolution():
    colour, grey = build(), build(num_channels=1)
    assert count(colour) - count(grey) == colour.backbone.conv_stem.weight.numel() * 2 // 3 == 24 * 2 * 9


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
def test_timms_initialisation_and_features_are_kept(backbone):
    model = build(backbone=backbone)
    torch.manual_seed(0)
    reference = timm.create_model(backbone, num_classes=0).eval()
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor), name
    pixel_values = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        hidden = model(pixel_values, output_hidden_states=True).hidden_states
        assert torch.equal(hidden[-1], reference.forward_features(pixel_values))
        stages = reference.forward_intermediates(pixel_values, intermediates_only=True)
        assert [state.shape for state in hidden[: len(stages)]] == [stage.shape for stage in stages]
        assert all(map(torch.equal, hidden, stages))


def test_a_backbone_that_hands_out_no_stages_still_gives_its_features(monkeypatch):
    model = build(backbone="test_efficientnet")
    pixel_values = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.features(pixel_values)[0]
        monkeypatch.delattr(type(model.backbone), "forward_intermediates")  # as some models of older versions of timm
        states = model.features(pixel_values)[0]
    assert len(states) == 2 < len(expected)
    assert torch.equal(states[-1], expected[-1])
    assert [part.shape for part in model.look(states)] == [(2, states[-1].shape[1])]


def test_a_gated_block_equals_timms_own_but_for_the_gate():
    model = build(backbone="test_resnet", block_attention="se")
    for block in residual_blocks(model.backbone).values():
        for norm in (module for module in block.modules() if isinstance(module, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        nn.init.zeros_(block.se.expand.weight)
        nn.init.constant_(block.se.expand.bias, 30.0)  # every gate is 1
        with torch.no_grad():
            ours, (gate,) = gated_residual(block, x)
            block.se = None
            torch.testing.assert_close(ours, block(x), atol=1e-6, rtol=1e-6)
        assert gate.min() == 1


def test_stem_stride_1_doubles_the_map_and_keeps_the_weights():
    coarse, fine = build(), build(stem_stride=1)
    assert coarse.state_dict().keys() == fine.state_dict().keys()
    pixel_values = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert coarse(pixel_values, output_hidden_states=True).hidden_states[-1].shape == (2, 256, 2, 2)
        assert fine(pixel_values, output_hidden_states=True).hidden_states[-1].shape == (2, 256, 3, 3)


def test_parts_that_features_never_pass_are_left_out():
    with torch.device("meta"):
        model = TimmForImageClassification(config(backbone="mobilenetv3_small_050"))
        reference = timm.create_model("mobilenetv3_small_050", num_classes=0)
    assert count(model.backbone) == count(reference) - count(reference.conv_head)
    assert model.classifier.in_features == 288


@pytest.mark.parametrize(
    ("values", "layers"),
    [
        ({}, ["Dropout"]),
        ({"classifier_hidden_sizes": [16], "dropout": 0.4}, ["Linear", "ReLU", "Dropout"]),
        (
            {"classifier_hidden_sizes": [16, 8], "classifier_norm": "batch", "classifier_activation": "gelu"},
            ["Linear", "BatchNorm1d", "GELUActivation", "Dropout"] * 2,
        ),
    ],
)
def test_the_head_is_as_described(values, layers):
    model = build(**values)
    assert [type(layer).__name__ for layer in model.head] == layers
    assert model.head[-1].p == values.get("dropout", 0.2)
    assert model.classifier.in_features == values.get("classifier_hidden_sizes", [256])[-1]


@pytest.mark.parametrize(
    ("values", "cam_name"),
    [
        ({"image_size": 192}, "attended"),  # features of 6×6
        ({}, "backbone.blocks.2"),  # 6×6, where the features are 2×2
        ({"backbone": "test_resnet", "block_attention": "se"}, "backbone.layer2.0.act2"),
        ({"image_size": 32}, "backbone.blocks.1"),
    ],
)
def test_grad_cam_reads_the_last_stage_with_at_least_six_cells(values, cam_name):
    model = build(**values)
    assert model.cam_layer is model.get_submodule(cam_name)


def test_the_named_form_is_efficientnet_b0_with_a_gate_on_its_features():
    with torch.device("meta"):
        model = SEEfficientNetForImageClassification(SEEfficientNetConfig(id2label=LABELS))
    assert model.config.backbone == "efficientnet_b0"
    assert model.attention_names == ("features.se",)
    assert count(model) == 4007548 + (1280 * 80 + 80) + (80 * 1280 + 1280) + (1280 * 7 + 7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "efficientnet_b00"}, r"has no backbone 'efficientnet_b00'; did you mean efficientnet_b0\?"),
        ({"backbone": "vit_tiny_patch16_224"}, r"gives \(1, 197, 192\), which is not \(B, C, H, W\); choose a conv"),
        ({"backbone": "test_mambaout"}, r"gives \(1, 2, 2, 64\), which is not \(B, C, H, W\)"),
        ({"backbone": "inception_v3"}, r"cannot run at image_size 48 .*; its own size, 299, fits"),
        ({"block_attention": "se"}, "block_attention needs a timm ResNet such as resnet50; test_efficientnet is none"),
        ({"backbone": "seresnet18", "block_attention": "cbam"}, "seresnet18 has attention in its blocks already; set"),
        ({"backbone": "test_convnext", "stem_stride": 1}, "stem_stride 1 needs a first convolution of stride 2"),
        ({"stem_stride": 3}, "stem_stride is 3; choose one of 1, 2"),
        ({"attention": "sse"}, "attention is 'sse'; choose one of none, se, cbam"),
        ({"classifier_norm": "layer"}, "classifier_norm is 'layer'; choose one of none, batch"),
        ({"classifier_activation": "swash"}, "classifier_activation is 'swash'"),
        ({"num_channels": 2}, r"num_channels must be 1 \(grey\) or 3 \(RGB\); 2 was given"),
    ],
)
def test_what_does_not_fit_is_refused(values, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        TimmForImageClassification(config(**values))


def test_missing_imagenet_weights_are_an_error_that_names_the_override(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"weights of test_efficientnet cannot be had .* model\.pretrained: false"):
        TimmForImageClassification.from_backbone(config())


@pytest.mark.parametrize(
    ("backbone", "channels", "gates"), [("test_efficientnet", 1, "none"), ("test_resnet", 3, "cbam")]
)
def test_imagenet_weights_reach_the_backbone_alone(monkeypatch, tmp_path, backbone, channels, gates):
    torch.manual_seed(7)
    published = timm.create_model(backbone)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    create = timm.create_model

    def create_offline(name, pretrained=False, **kwargs):
        return create(name, pretrained=pretrained, pretrained_cfg_overlay={"file": tmp_path / "weights.pth"}, **kwargs)

    monkeypatch.setattr(timm, "create_model", create_offline)
    values = {"backbone": backbone, "num_channels": channels, "block_attention": gates, "attention": "se"}
    plain = build(**values)
    torch.manual_seed(0)
    model = TimmForImageClassification.from_backbone(config(**values)).eval()
    wanted = published.state_dict()
    for name, tensor in model.state_dict().items():
        inside = name.removeprefix("backbone.")
        if name == "backbone.conv_stem.weight":
            torch.testing.assert_close(tensor, wanted[inside].sum(1, keepdim=True))
        elif inside in wanted and name != inside:
            assert torch.equal(tensor, wanted[inside]), name
        else:
            assert torch.equal(tensor, plain.state_dict()[name]), name


def test_a_mismatched_first_convolution_is_initialised_not_left_to_chance(tmp_path):
    build(num_channels=1, drop_path=0.1).save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, num_channels=3, ignore_mismatched_sizes=True)
    stem = model.backbone.conv_stem.weight
    expected = (2 / (stem.shape[0] * 9)) ** 0.5  # He et al., arXiv 1502.01852, over the outputs
    assert stem.shape[1] == 3
    assert float(stem.detach().std()) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("backbone", "size"), [("resnetblur18", 48), ("efficientformerv2_s0", 224)])
def test_what_timm_computes_and_no_file_holds_is_there_after_a_reload(tmp_path, backbone, size):
    model = build(backbone=backbone, image_size=size)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    pixel_values = torch.randn(1, model.config.num_channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(again(pixel_values).raw_logits, model(pixel_values).raw_logits)
