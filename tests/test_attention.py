"""Maps agree with the reference Grad-CAM, land at the right pixels of the photo, and leave the model as it was."""

import copy
import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from fer_hf import attention
from fer_hf.attention import _evidence, attention_maps, grad_cam, warp_to_photo
from fer_hf.hub import default_model_path, load_model
from fer_hf.recognition import ExpressionRecognizer


@pytest.fixture(scope="module")
def model(tiny_model_path):
    return load_model(tiny_model_path).model


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    return torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(1))


class RawLogits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values).raw_logits


@pytest.mark.parametrize("targets", [None, [3, 0, 6]])
def test_grad_cam_equals_the_reference_before_upsampling(model, pixel_values, targets, monkeypatch):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    monkeypatch.setattr(GradCAM, "get_target_width_height", lambda *_: None)
    with GradCAM(RawLogits(model), [model.cam_layer]) as reference:
        wanted = [ClassifierOutputTarget(index) for index in targets] if targets else None
        expected = reference(pixel_values, wanted)
    model.zero_grad()  # the reference leaves gradients behind
    found = grad_cam(model, pixel_values, targets)
    assert found.shape == (3, 24, 24)  # the tiny model's last stage
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert found.amin((1, 2)).tolist() == [0, 0, 0]
    assert found.amax((1, 2)).numpy() == pytest.approx([1, 1, 1])


def test_a_sure_answer_from_a_memory_has_its_map_in_half_precision_too(astronaut):
    recognizer = ExpressionRecognizer.from_pretrained(default_model_path())
    (found,) = recognizer.recognize(astronaut).predictions
    network = recognizer.classifier.network
    assert network.memory is not None
    pixels = recognizer.classifier.pixel_values([found.aligned.crop])
    assert network(pixels).logits.softmax(1).max() > 0.99
    whole, half = grad_cam(network, pixels), grad_cam(copy.deepcopy(network).half(), pixels.half())
    assert np.corrcoef(whole.flatten(), half.float().flatten())[0, 1] > 0.99
    logits = torch.randn(4, 7, dtype=torch.float64).log_softmax(1)
    odds = (logits.exp() / (1 - logits.exp())).log()[:, 2]
    assert torch.allclose(_evidence(logits, torch.full((4, 1), 2), True), odds.float(), atol=1e-5)


def test_target_changes_the_map_and_one_class_serves_all(model, pixel_values):
    happy, sad = grad_cam(model, pixel_values, 3), grad_cam(model, pixel_values, 4)
    assert (happy - sad).abs().max() > 0.1
    assert torch.equal(happy, grad_cam(model, pixel_values, [3, 3, 3]))


def test_model_is_left_without_hooks_gradients_or_changed_modes(model, pixel_values):
    model.train()
    with torch.inference_mode():
        asked = pixel_values.clone()
        in_training_mode = grad_cam(model, asked, 3)
        assert torch.is_inference_mode_enabled()
    assert model.training
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(in_training_mode, grad_cam(model.eval(), pixel_values, 3))


def test_threads_that_share_a_model_get_their_own_maps(model, pixel_values):
    alone = [grad_cam(model, pixel_values[i : i + 1], 3) for i in range(3)]
    results = [None] * 12

    def ask(index: int) -> None:
        results[index] = grad_cam(model, pixel_values[index % 3 : index % 3 + 1], 3)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, alone[index % 3]) for index, result in enumerate(results))


def test_the_private_copy_is_kept_until_the_model_has_other_parts(model, pixel_values, monkeypatch):
    copies = []
    shared_copy = attention.shared_copy
    monkeypatch.setattr(attention, "shared_copy", lambda one: copies.append(None) or shared_copy(one))
    changed = copy.deepcopy(model)

    def copies_made() -> int:
        before = len(copies)
        found = grad_cam(changed, pixel_values, 3)
        made = len(copies) - before
        assert torch.equal(found, grad_cam(copy.deepcopy(changed), pixel_values, 3))
        return made

    assert copies_made() == 1
    with torch.no_grad():
        changed.classifier.weight.neg_()  # shared with the copy
    assert copies_made() == 0
    changed.classifier = torch.nn.Linear(changed.classifier.in_features, 7)
    assert copies_made() == 1
    changed.double().float()  # puts other buffers in place
    assert copies_made() == 1
    lives = weakref.ref(changed)
    changed = None
    gc.collect()
    assert lives() is None


def test_a_model_without_cam_layer_says_so_and_takes_one(model, pixel_values):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.config = model, model.config

        def forward(self, pixel_values):
            return self.inner(pixel_values)

    plain = Plain()
    with pytest.raises(ValueError, match="Plain names no cam_layer"):
        grad_cam(plain, pixel_values)
    assert torch.equal(grad_cam(plain, pixel_values, 1, layer=model.cam_layer), grad_cam(model, pixel_values, 1))
    with pytest.raises(ValueError, match="classifier gives another"):
        grad_cam(model, pixel_values, layer=model.classifier)


def test_gates_come_by_name_in_network_order(model, pixel_values):
    maps = attention_maps(model, pixel_values)
    assert list(maps) == ["stage1.block1.se", "stage2.block1.se"]
    assert [tuple(gates.shape) for gates in maps.values()] == [(3, 8), (3, 16)]
    direct = model(pixel_values, output_attentions=True).attentions[1]
    assert torch.equal(maps["stage2.block1.se"], direct[:, :, 0, 0])


def test_spatial_maps_lose_their_channel(pixel_values):
    from fer_hf.labels import FER7, id2label
    from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
    from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification

    config = ResNetSwishConfig(id2label=id2label(FER7), hidden_sizes=(4, 4), depths=(1, 1), attention="cbam")
    maps = attention_maps(ResNetSwishForImageClassification(config).eval(), pixel_values)
    assert {name: tuple(found.shape) for name, found in maps.items()} == {
        "stage1.block1.cbam.channel": (3, 4),
        "stage1.block1.cbam.spatial": (3, 48, 48),
        "stage2.block1.cbam.channel": (3, 4),
        "stage2.block1.cbam.spatial": (3, 24, 24),
    }
    config.image_size = 2
    small = attention_maps(ResNetSwishForImageClassification(config).eval(), pixel_values[:, :, :2, :2])
    assert tuple(small["stage2.block1.cbam.spatial"].shape) == (3, 1, 1)


@pytest.mark.parametrize("angle_deg", [0, 25, 180])
def test_a_point_in_the_crop_lands_at_its_pixel_of_the_photo(angle_deg):
    photo_wh, size_px, scale = (120, 90), 48, 0.6
    turn = np.deg2rad(angle_deg)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    point_photo, point_crop = np.array([70.5, 40.5]), np.array([20.5, 30.5])
    affine = np.column_stack([rotation, point_crop - rotation @ point_photo])
    crop_map = np.zeros((size_px, size_px), dtype=np.float32)
    crop_map[30, 20] = 1  # the pixel whose centre is (20.5, 30.5)
    warped = warp_to_photo(crop_map, affine, photo_wh)
    assert warped.shape == (90, 120)
    assert np.unravel_index(warped.argmax(), warped.shape) == (40, 70)
    assert warped[40, 70] == pytest.approx(1, abs=0.01)


def test_outside_the_crop_the_photo_gets_zero():
    affine = np.array([[1.0, 0, -30], [0, 1.0, -10]])  # the crop covers x 30 to 46, y 10 to 26
    warped = warp_to_photo(np.ones((16, 16)), affine, (80, 60))
    inside = np.zeros((60, 80), dtype=bool)
    inside[10:26, 30:46] = True
    assert (warped[inside] == 1).all()
    assert (warped[~inside] == 0).all()
