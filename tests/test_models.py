"""The contract that every registered model class keeps, on tiny configurations."""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig

from fer_hf.labels import FER7, id2label
from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification
from fer_hf.models.modeling_fer import FerPreTrainedModel
from fer_hf.registry import MODEL_TYPES, config_class, model_class

TINY = {
    "resnet_swish": (
        "fer_resnet_swish",
        {
            "hidden_sizes": (8, 16),
            "depths": (1, 1),
            "attention": "cbam",
            "classifier_hidden_sizes": (8,),
            "image_size": 24,
        },
    ),
    "cbam_5cnn": ("fer_cbam_5cnn", {"hidden_sizes": (8, 8, 8, 8, 8), "image_size": 32}),
    "se_efficientnet": ("fer_se_efficientnet", {"backbone": "test_efficientnet", "image_size": 48, "stem_stride": 1}),
    "timm": (
        "fer_timm",
        {
            "backbone": "test_efficientnet",
            "image_size": 40,
            "num_channels": 1,
            "attention": "cbam",
            "classifier_hidden_sizes": (12, 8),
            "classifier_norm": "batch",
            "classifier_activation": "silu",
            "drop_path": 0.1,
        },
    ),
    "remembering": (
        "fer_resnet_swish",
        {
            "hidden_sizes": (8, 16),
            "depths": (1, 1),
            "image_size": 24,
            "memory_rows": 5,
            "memory_width": 16 + 4 * 8,
            "memory_size": 3,
        },
    ),
    "timm_gated_blocks": ("fer_timm", {"backbone": "test_resnet", "image_size": 48, "block_attention": "cbam"}),
}
ATTENTION_SHAPES = {
    "resnet_swish": {
        "stage1.block1.cbam.channel": (8, 1, 1),
        "stage1.block1.cbam.spatial": (1, 24, 24),
        "stage2.block1.cbam.channel": (16, 1, 1),
        "stage2.block1.cbam.spatial": (1, 12, 12),
    },
    "cbam_5cnn": {
        f"block{index}.cbam.{kind}": shape
        for index, side in enumerate((32, 16, 8, 4, 2), start=1)
        for kind, shape in (("channel", (8, 1, 1)), ("spatial", (1, side, side)))
    },
    "se_efficientnet": {"features.se": (256, 1, 1)},
    "timm": {"features.cbam.channel": (256, 1, 1), "features.cbam.spatial": (1, 2, 2)},
    "remembering": {},
    "timm_gated_blocks": {
        f"layer{stage}.0.cbam.{kind}": shape
        for stage, width, side in ((1, 32, 12), (2, 48, 6), (3, 192, 3), (4, 96, 2))
        for kind, shape in (("channel", (width, 1, 1)), ("spatial", (1, side, side)))
    },
}
ATTENTION_SHAPES["ensemble"] = {
    f"member{index}.{name}": shape
    for index, member in enumerate(("resnet_swish", "se_efficientnet"), start=1)
    for name, shape in ATTENTION_SHAPES[member].items()
}
SYSTEMS = [*TINY, "ensemble"]


@cache
def shared(system: str) -> FerPreTrainedModel:
    """One model a system for all tests: leave it as it is."""
    torch.manual_seed(0)
    if system == "ensemble":
        members = [(shared(name), processor_of(shared(name))) for name in ("resnet_swish", "se_efficientnet")]
        return FerEnsembleForImageClassification.from_members(members, weights=(1, 3))
    model_type, config = TINY[system]
    model = model_class(model_type)(config_class(model_type)(id2label=id2label(FER7), **config))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        # Residual branches start as zero; a contract about gradients needs them to do something.
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(pixels(model, 8))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def processor_of(model: FerPreTrainedModel) -> FerImageProcessor:
    channels = model.config.num_channels
    return FerImageProcessor(model.config.image_size, channels, [0.5] * channels, [0.25] * channels)


def pixels(model: FerPreTrainedModel, count: int = 2) -> torch.Tensor:
    side = model.config.image_size
    shape = (count, model.config.num_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_every_registered_type_is_tested():
    assert {shared(system).config.model_type for system in SYSTEMS} == set(MODEL_TYPES)


def test_a_temperature_is_saved_by_versions_that_take_it_for_one_of_text_generation(tmp_path, monkeypatch):
    """transformers up to 5.17 refuses to save a config for what it finds here."""
    found = {"temperature": 1.5}
    monkeypatch.setattr(PreTrainedConfig, "_get_generation_parameters", lambda self: found)
    config = ResNetSwishConfig(id2label=id2label(FER7), temperature=1.5)
    config.save_pretrained(tmp_path)
    assert ResNetSwishConfig.from_pretrained(tmp_path).temperature == 1.5


@pytest.mark.parametrize("system", SYSTEMS)
class TestContract:
    def test_gradients_reach_every_parameter(self, system):
        model = copy.deepcopy(shared(system)).train()
        output = model(pixels(model), labels=torch.tensor([3, 5]))
        assert output.logits.isfinite().all()
        output.loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_evaluation_is_deterministic_and_independent_of_the_batch(self, system):
        model = shared(system)
        with torch.no_grad():
            batch = pixels(model, 3)
            together = model(batch).logits
            assert torch.equal(model(batch).logits, together)
            single = torch.cat([model(image[None]).logits for image in batch])
        torch.testing.assert_close(single, together, atol=1e-5, rtol=1e-5)
        assert together.std(0).max() > 1e-4

    def test_reload_gives_equal_logits(self, system, tmp_path):
        model = shared(system)
        model.save_pretrained(tmp_path)
        again = AutoModelForImageClassification.from_pretrained(tmp_path)
        assert type(again) is type(model)
        assert not again.training
        with torch.no_grad():
            torch.testing.assert_close(again(pixels(model)).logits, model(pixels(model)).logits, atol=1e-6, rtol=0)
        assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()

    def test_labels_give_the_loss_on_raw_logits(self, system):
        model = shared(system)
        labels = torch.tensor([3, 5])
        output = model(pixels(model), labels=labels)
        torch.testing.assert_close(output.loss, F.cross_entropy(output.raw_logits, labels))
        votes = torch.tensor([[0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0.25, 0.75, 0, 0]])
        expected = -(votes * output.raw_logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(model(pixels(model), labels=votes).loss, expected)

    def test_attention_maps_have_names_and_documented_shapes(self, system):
        model = shared(system)
        output = model(pixels(model), output_attentions=True)
        shapes = {name: tuple(m.shape[1:]) for name, m in zip(model.attention_names, output.attentions, strict=True)}
        assert shapes == ATTENTION_SHAPES[system]
        assert all(m.min() >= 0 and m.max() <= 1 and m.shape[0] == 2 for m in output.attentions)
        assert model(pixels(model)).attentions is None

    def test_return_dict_false_gives_the_same_in_a_tuple(self, system):
        model = shared(system)
        output = model(pixels(model), labels=torch.tensor([0, 1]), output_hidden_states=True)
        loss, logits, raw_logits, hidden_states = model(
            pixels(model), labels=torch.tensor([0, 1]), output_hidden_states=True, return_dict=False
        )
        assert torch.equal(loss, output.loss)
        assert torch.equal(logits, output.logits)
        assert torch.equal(raw_logits, output.raw_logits)
        assert [h.shape for h in hidden_states] == [h.shape for h in output.hidden_states]

    def test_gradient_checkpointing_gives_equal_gradients(self, system):
        plain = copy.deepcopy(shared(system)).train()
        saving = copy.deepcopy(plain)
        saving.activation_checkpointing_enable()
        convolutions = {}
        for model in (plain, saving):
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_pre_hook(
                        lambda *_, m=model: convolutions.update({m: convolutions.get(m, 0) + 1})
                    )
            torch.manual_seed(2)
            model(pixels(model), labels=torch.tensor([3, 5])).loss.backward()
        assert convolutions[saving] > 1.5 * convolutions[plain]
        for (name, parameter), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
            torch.testing.assert_close(other.grad, parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
        for (name, statistic), other in zip(plain.named_buffers(), saving.buffers(), strict=True):
            torch.testing.assert_close(other, statistic, atol=1e-6, rtol=1e-5, msg=name)
        assert any(name.endswith("running_mean") for name, _ in plain.named_buffers())

    @pytest.mark.parametrize("shape", [(2, 2, 24, 24), (2, 1, 23, 23), (1, 24, 24)])
    def test_other_shapes_are_refused_with_one_that_fits(self, system, shape):
        model = shared(system)
        side = model.config.image_size
        with pytest.raises(ValueError, match=rf"takes \(B, {model.config.num_channels}, {side}, {side}\)"):
            model(torch.zeros(shape))

    def test_unknown_config_keys_are_refused(self, system):
        config = shared(system).config.to_dict()
        with pytest.raises(ValueError, match=r"unknown fer_.* config key 'hiden_sizes'"):
            type(shared(system).config)(**config, hiden_sizes=3)

    def test_temperature_divides_the_logits(self, system):
        model = copy.deepcopy(shared(system))
        with torch.no_grad():
            before = model(pixels(model))
            model.config.temperature = 2.5
            after = model(pixels(model))
        assert torch.equal(after.raw_logits, before.raw_logits)
        torch.testing.assert_close(after.logits, before.raw_logits / 2.5)

    def test_half_precision_runs(self, system):
        model = copy.deepcopy(shared(system)).half()
        with torch.no_grad():
            logits = model(pixels(model).half()).logits
            expected = shared(system)(pixels(model)).logits
        assert logits.dtype == torch.float16
        torch.testing.assert_close(logits.float().softmax(1), expected.softmax(1), atol=0.02, rtol=0)

    def test_cam_layer_puts_out_a_map_with_gradients(self, system):
        model = shared(system)
        seen = []
        handle = model.cam_layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            logits = model(pixels(model)).raw_logits
        finally:
            handle.remove()
        (cam_map,) = seen
        assert cam_map.ndim == 4
        assert min(cam_map.shape[2:]) >= 4
        (gradient,) = torch.autograd.grad(logits[:, 3].sum(), cam_map)
        assert gradient.abs().sum() > 0
