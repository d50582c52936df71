"""Ensembles: the weighted mean of calibrated probabilities, each member seeing what its own processor would make."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from fer_hf.labels import FER7, id2label
from fer_hf.models.configuration_ensemble import FerEnsembleConfig
from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
from fer_hf.models.configuration_timm import TimmConfig
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification, shared_processor
from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification
from fer_hf.models.modeling_timm import TimmForImageClassification

TEMPLATE = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))


def grey_member(names=FER7, temperature=0.5):
    torch.manual_seed(1)
    config = ResNetSwishConfig(
        id2label=id2label(names), image_size=24, hidden_sizes=(8, 8), depths=(1, 1), temperature=temperature
    )
    model = ResNetSwishForImageClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model, FerImageProcessor(24, face_template=TEMPLATE)


def rgb_member(names=FER7, template=TEMPLATE):
    torch.manual_seed(2)
    config = TimmConfig(id2label=id2label(names), image_size=64, backbone="test_efficientnet", temperature=2.0)
    model = TimmForImageClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return model, FerImageProcessor(64, 3, mean, std, face_template=template)


def ensemble_of(members, weights=None):
    processor = shared_processor([own for _, own in members])
    return FerEnsembleForImageClassification.from_members(members, weights), processor


@pytest.fixture(scope="module")
def crop() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC)


def test_an_ensemble_may_take_a_lesser_members_size(crop):
    members = [grey_member(), rgb_member()]
    processor = shared_processor([own for _, own in members], 24)
    model = FerEnsembleForImageClassification.from_members(members, image_size=24)
    assert processor.size_px == model.config.image_size == 24
    small = crop.resize((24, 24), Image.Resampling.BILINEAR)
    pixel_values = processor(small)["pixel_values"]
    for index, (_, own) in enumerate(members):
        seen = model.member_pixels(pixel_values, index)
        expected = own(small)["pixel_values"]
        assert seen.shape == expected.shape
        assert ((seen - expected).abs() * torch.tensor(own.image_std).view(1, -1, 1, 1) * 255).max() <= 1.01
    assert model(pixel_values).logits.shape == (1, 7)
    with pytest.raises(ValueError, match="image_size is 32; choose the size of a member: 24, 64"):
        FerEnsembleForImageClassification.from_members(members, image_size=32)


def test_logits_are_the_log_of_the_weighted_mean_of_calibrated_probabilities(crop):
    members = [grey_member(), rgb_member()]
    model, processor = ensemble_of(members, weights=(1, 3))
    pixel_values = processor(crop)["pixel_values"]
    with torch.no_grad():
        output = model(pixel_values)
        own = [m(model.member_pixels(pixel_values, i)).logits.softmax(1) for i, (m, _) in enumerate(members)]
    assert model.config.weights == [0.25, 0.75]
    torch.testing.assert_close(output.raw_logits.exp(), 0.25 * own[0] + 0.75 * own[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output.logits.softmax(1), output.raw_logits.exp(), atol=1e-6, rtol=1e-5)
    assert (own[0] - own[1]).abs().max() > 0.02


def test_each_member_sees_its_own_processors_numbers_up_to_rounding(crop):
    members = [grey_member(), rgb_member()]
    model, processor = ensemble_of(members)
    assert (processor.size_px, processor.num_channels) == (64, 3)
    pixel_values = processor(crop)["pixel_values"]
    for index, (_, own) in enumerate(members):
        expected = own(crop)["pixel_values"]
        seen = model.member_pixels(pixel_values, index)
        assert seen.shape == expected.shape
        # Pillow rounds to whole grey levels twice for the grey member, after luma and after the resize.
        assert ((seen - expected).abs() * torch.tensor(own.image_std).view(1, -1, 1, 1) * 255).max() <= 1.01
    assert torch.equal(model.member_pixels(pixel_values, 1), pixel_values)


def test_equal_members_answer_as_one():
    member, own = grey_member()
    model, _ = ensemble_of([(member, own), (member, own)])
    pixel_values = torch.randn(2, 1, 24, 24)
    with torch.no_grad():
        expected = member(pixel_values).logits.softmax(1)
        torch.testing.assert_close(model(pixel_values).logits.softmax(1), expected)


def test_a_weight_of_zero_takes_a_member_out():
    members = [grey_member(), rgb_member()]
    model, _ = ensemble_of(members, weights=(0, 1))
    pixel_values = torch.randn(2, 3, 64, 64)
    output = model(pixel_values, labels=torch.tensor([0, 1]))
    torch.testing.assert_close(output.logits.softmax(1), members[1][0](pixel_values).logits.softmax(1))
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.cam_layer is model.members[1].cam_layer


def test_classes_are_matched_by_name_whatever_their_order():
    shuffled = ("neutral", "happy", "sad", "angry", "disgust", "surprise", "fear")
    first, second = grey_member(), grey_member(shuffled)
    # The same network with its classifier's rows in the other order answers the same, by name.
    second[0].load_state_dict(first[0].state_dict())
    order = [FER7.index(name) for name in shuffled]
    with torch.no_grad():
        second[0].classifier.weight.copy_(first[0].classifier.weight[order])
    model, _ = ensemble_of([first, second])
    pixel_values = torch.randn(3, 1, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values).logits.softmax(1), first[0](pixel_values).logits.softmax(1))
    assert [model.config.id2label[i] for i in range(7)] == list(FER7)


def test_one_folder_holds_everything_and_works_in_the_stock_pipeline(tmp_path, crop):
    model, processor = ensemble_of([grey_member(), rgb_member()], weights=(0.3, 0.7))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    pixel_values = processor(crop)["pixel_values"]
    with torch.no_grad():
        expected = model(pixel_values).logits
        torch.testing.assert_close(again(pixel_values).logits, expected, atol=1e-6, rtol=0)
    assert again.config.weights == [0.3, 0.7]
    assert again.config.members == model.config.members
    answers = pipeline("image-classification", model=str(tmp_path), device="cpu")(crop, top_k=7)
    scores = {answer["label"]: answer["score"] for answer in answers}
    expected_scores = expected.softmax(1)[0]
    assert scores == pytest.approx({name: float(expected_scores[i]) for i, name in enumerate(FER7)}, abs=1e-6)


def test_an_ensemble_under_other_class_names_is_refused_in_one_sentence(tmp_path):
    model, _ = ensemble_of([grey_member()])
    model.save_pretrained(tmp_path)
    names = {index: f"x{index}" for index in range(7)}
    with pytest.raises(ValueError, match=r"member 1 knows the classes \['angry', .* the ensemble \['x0', "):
        AutoModelForImageClassification.from_pretrained(tmp_path, id2label=names)


def test_members_are_copies_and_an_ensembles_temperature_is_its_own():
    members = [grey_member()]
    model, _ = ensemble_of(members)
    with torch.no_grad():
        model.members[0].classifier.weight.zero_()
    assert members[0][0].classifier.weight.abs().sum() > 0
    assert model.config.temperature == 1.0
    assert model.members[0].config.temperature == 0.5


def fake_model(model_type: str):
    model = torch.nn.Identity()
    model.config = type("Config", (), {"model_type": model_type})()
    return model


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ([], None, "an ensemble needs at least one member; none was given"),
        ([grey_member(), grey_member(FER7[:5])], None, r"member 2 knows the classes .* must know the same ones"),
        ([grey_member(), rgb_member(template=None)], None, "must frame faces alike: .* differ in face_template"),
        ([grey_member()], (1, 2), r"weights must be 1 numbers from 0, not all 0; \(1, 2\) was given"),
        ([grey_member()], (-1,), "weights must be 1 numbers from 0"),
        ([grey_member()], (0,), "not all 0"),
        (
            [(fake_model("vit"), grey_member()[1])],
            None,
            "a model of type 'vit' cannot be a member; choose",
        ),
    ],
)
def test_what_cannot_be_an_ensemble_is_refused(members, weights, message):
    with pytest.raises(ValueError, match=message):
        FerEnsembleForImageClassification.from_members(members, weights)


def test_configs_of_unknown_or_greater_members_are_refused():
    colour = ensemble_of([rgb_member()])[0].config.to_dict()
    with pytest.raises(ValueError, match="member 1 takes 3 channels, more than the 1 that the ensemble takes"):
        FerEnsembleForImageClassification(FerEnsembleConfig(**colour | {"num_channels": 1}))
    model, _ = ensemble_of([grey_member()])
    values = model.config.to_dict()
    member = values["members"][0]
    unknown = [member | {"config": member["config"] | {"model_type": "vit"}}]
    with pytest.raises(ValueError, match="a member of type 'vit' is unknown; known are fer_cbam_5cnn"):
        FerEnsembleForImageClassification(FerEnsembleConfig(**values | {"members": unknown}))
    with pytest.raises(ValueError, match="member 1 must have the keys config, image_mean, image_std"):
        FerEnsembleConfig(**values | {"members": [{"config": member["config"]}]})
    with pytest.raises(ValueError, match="an ensemble needs at least one member"):
        FerEnsembleConfig(id2label=id2label(FER7))
