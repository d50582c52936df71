"""A memory of training rows beside the classifier: what it says, how it is filled, kept and dropped."""

import json
import math
import shutil

import pytest
import torch
import yaml

from fer_hf.data.loaders import load_arrays
from fer_hf.data.sources import load_source
from fer_hf.hub import load_model, save_portable
from fer_hf.labels import FER7
from fer_hf.models import modeling_fer
from fer_hf.models.configuration_cbam_5cnn import CBAM5CNNConfig
from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
from fer_hf.models.configuration_timm import TimmConfig
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.layers_memory import NeighbourMemory
from fer_hf.models.modeling_cbam_5cnn import CBAM5CNNForImageClassification
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification
from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification
from fer_hf.models.modeling_timm import TimmForImageClassification
from training import remember, train
from training.distillation import Teacher
from training.provenance import overlap, read_used, write_used
from training.scoring import hash_weights

from .tiny_recipe import write


def two_rows(weight=10.0, temperature=0.03) -> NeighbourMemory:
    """Remembers (1, 0) as class 0 and (0, 1) as class 1, of three classes, with the plane as it is."""
    memory = NeighbourMemory(2, 2, 2, 3, weight, temperature)
    memory.projection.copy_(torch.eye(2))
    memory.keys.copy_(torch.tensor([[127, 0], [0, 127]]))
    memory.values.copy_(torch.tensor([[255, 0, 0], [0, 255, 0]]))
    return memory


def probabilities(memory: NeighbourMemory, *embedding: float) -> list[float]:
    """What becomes of a classifier that holds all three classes for equally likely."""
    return memory(torch.tensor([embedding]), torch.zeros(1, 3)).softmax(1)[0].tolist()


def test_a_row_that_looks_the_same_counts_by_its_weight():
    # The classifier's thirds and ten for class 0; the other row is at exp(-1 / 0.03), nothing.
    assert probabilities(two_rows(), 5.0, 0.0) == pytest.approx([(10 + 1 / 3) / 11, 1 / 33, 1 / 33])


def test_a_row_that_looks_less_alike_counts_less():
    counts = 10 * math.exp((math.sqrt(0.5) - 1) / 0.1)
    expected = [(counts + 1 / 3) / (2 * counts + 1)] * 2
    assert probabilities(two_rows(temperature=0.1), 1.0, 1.0)[:2] == pytest.approx(expected)


def test_where_nothing_looks_alike_the_classifier_stands():
    raw = torch.tensor([[2.0, -1.0, 0.5]])
    answer = two_rows()(torch.tensor([[-1.0, -1.0]]), raw)
    torch.testing.assert_close(answer.softmax(1), raw.softmax(1))


def test_an_impossible_class_stays_finite():
    raw = torch.tensor([[500.0, -500.0, -500.0]])
    assert two_rows()(torch.tensor([[1.0, 0.0]]), raw).isfinite().all()


def test_keys_are_whitened_unit_vectors_of_the_rows():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 3, generator=generator) * torch.tensor([100.0, 1.0, 1e-3]) + 7
    values = torch.eye(2)[torch.arange(400) % 2]
    memory = NeighbourMemory.of([rows], values, 2, 10.0, 0.03)
    places = (rows - rows.mean(0)).double() @ memory.projection.double()
    spread = places.T @ places
    torch.testing.assert_close(spread / spread[0, 0], torch.eye(2).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(memory.keys.float().norm(dim=1) / 127, torch.ones(400), atol=0.01, rtol=0)
    torch.testing.assert_close(memory.similarity(rows).diag(), torch.ones(400), atol=0.01, rtol=0)
    assert memory.values[:2].tolist() == [[255, 0], [0, 255]]


def test_parts_count_alike_whatever_their_scale():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(300, 2, generator=generator), 1e3 * torch.randn(300, 2, generator=generator) + 5
    values = torch.eye(2)[torch.arange(300) % 2]
    memory = NeighbourMemory.of([one, two], values, 4, 10.0, 0.03)
    scaled = NeighbourMemory.of([one, two / 1e3], values, 4, 10.0, 0.03)
    assert (memory.keys.int() - scaled.keys.int()).abs().max() <= 1
    # Without equal shares the axes of the larger part would come first and the smaller one's not at all.
    narrow = NeighbourMemory.of([one[:, :1], two[:, :1]], values, 1, 10.0, 0.03)
    spread = narrow.projection.flatten().double() * torch.stack([one[:, 0].std(), two[:, 0].std()])
    assert abs(spread[0] / spread[1]) == pytest.approx(1, abs=1e-2)


def test_a_part_that_never_varies_is_no_obstacle():
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    memory = NeighbourMemory.of([rows, torch.ones(50, 4)], torch.eye(2)[torch.arange(50) % 2], 3, 10.0, 0.03)
    torch.testing.assert_close(
        memory.similarity(torch.cat([rows, torch.ones(50, 4)], 1)).diag(), torch.ones(50), atol=0.01, rtol=0
    )


def test_more_axes_than_there_are_is_refused():
    with pytest.raises(ValueError, match="10 rows of 4 numbers span at most 4 axes; a memory of size 5"):
        NeighbourMemory.of([torch.zeros(10, 4)], torch.zeros(10, 2), 5, 10.0, 0.03)


@pytest.fixture(scope="module")
def trained(tiny_data_path, tmp_path_factory):
    """A tiny model after a few epochs, with its recipe."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write(folder)
    train.main(["--recipe", str(recipe), "--data", str(tiny_data_path), "--output", str(folder), "--tracker", "none"])
    return folder / "best"


@pytest.fixture(scope="module")
def remembering(trained, tiny_data_path, tmp_path_factory):
    """The same with a memory of its training rows, as the command writes it."""
    folder = tmp_path_factory.mktemp("remembering") / "model"
    arguments = ["--model", str(trained), "--data", str(tiny_data_path), "--output", str(folder), "--size", "8"]
    remember.main(arguments)
    return folder


def test_the_command_remembers_what_was_trained_on(remembering, trained):
    model = load_model(remembering).model
    assert model.config.memory_rows == 139  # 140, less the one that validation has too
    assert model.memory.keys.dtype == torch.int8
    assert model.memory.values.argmax(1).tolist() == [row % 7 for row in range(140) if row != 5]
    assert (model.config.temperature, model.config.conformal_threshold) == (1.0, None)
    assert (remembering / "recipe.yaml").read_text() == (trained / "recipe.yaml").read_text()
    assert read_used(remembering) == read_used(trained)
    assert "layers_memory.py" in {file.name for file in remembering.iterdir()}


def test_the_record_says_what_the_memory_changed(remembering, trained, tiny_data_path):
    record = json.loads((remembering / "memory.json").read_text())
    assert (record["rows"], record["labels"], record["size"], record["weight"]) == (139, "fer2013", 8, 30.0)
    assert record["weights_sha256"] == hash_weights(remembering)
    assert record["command"] == (
        "python training/remember.py --model MODEL --data DATA --size 8 --weight 30 --temperature 0.045 --output OUTPUT"
    )
    whole, *groups = record["validation"]
    assert whole["n"] == 70 == sum(group["n"] for group in groups)
    hits = sum(round(group["n"] * group["accuracy"]) for group in groups)
    assert whole["accuracy"] == pytest.approx(hits / 70)
    assert [group["nearest_cosine"][0] for group in groups] == sorted(g["nearest_cosine"][0] for g in groups)
    loaded = load_model(remembering)
    recipe = remember.recipe_of(trained, [])
    _, validation, _ = train.load_data(recipe, loaded.processor, str(tiny_data_path), None)
    with torch.inference_mode():
        answers = loaded.model(loaded.processor.normalize_uint8(validation.images)).raw_logits.argmax(1)
    assert whole["accuracy"] == pytest.approx(float((answers == validation.labels).float().mean()))
    loaded.model.forget()
    with torch.inference_mode():
        answers = loaded.model(loaded.processor.normalize_uint8(validation.images)).raw_logits.argmax(1)
    assert whole["classifier_accuracy"] == pytest.approx(float((answers == validation.labels).float().mean()))


def _split(data, name):
    return load_arrays(load_source(str(data))[name], FerImageProcessor(), labels="fer2013", names=FER7)


def test_rows_that_are_remembered_count_as_learned_from(tiny_data_path, tmp_path):
    recipe = write(tmp_path, epochs=1, data={"fraction": 0.3})
    train.main(["--recipe", str(recipe), "--data", str(tiny_data_path), "--output", str(tmp_path), "--tracker", "none"])
    write_used(tmp_path / "best", "temperature", _split(tiny_data_path, "validation"))
    arguments = ["--model", str(tmp_path / "best"), "--data", str(tiny_data_path), "--output", str(tmp_path / "all")]
    remember.main([*arguments, "--size", "8", "--set", "data.fraction=1.0"])
    rows = _split(tiny_data_path, "train")
    assert overlap(read_used(tmp_path / "best")["train"], rows) < 0.4
    assert overlap(read_used(tmp_path / "all")["train"], rows) > 0.95
    assert set(read_used(tmp_path / "all")) == {"train", "selection"}  # the memory has no temperature yet


def test_a_model_that_learns_answers_from_its_classifier_alone(remembering):
    model = load_model(remembering).model
    pixels = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    embedding = model.embed(model.features(pixels)[0][-1])
    alone = model.classifier(embedding)
    assert not torch.allclose(model(pixels).raw_logits.softmax(1), alone.softmax(1), atol=1e-3)
    model.forget()
    torch.testing.assert_close(model(pixels).raw_logits, alone)
    assert not any(name.startswith("memory") for name in model.state_dict())


def test_training_with_a_memory_is_warned_of(remembering, monkeypatch):
    said = []
    monkeypatch.setattr(modeling_fer.logger, "warning_once", said.append)
    model = load_model(remembering).model.train()
    pixels = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    model(pixels)
    assert len(said) == 1
    assert "call unfit() before they learn on" in said[0]
    model.forget()
    model(pixels)
    model.eval()(pixels)
    assert len(said) == 1


def test_training_on_from_a_memory_drops_it(remembering, tiny_data_path, tmp_path):
    recipe = write(tmp_path, model={"start_from": str(remembering)}, phases=[{"epochs": 1}])
    arguments = ["--recipe", str(recipe), "--data", str(tiny_data_path), "--output", str(tmp_path / "on")]
    train.main([*arguments, "--tracker", "none"])
    assert load_model(tmp_path / "on" / "best").model.config.memory_rows == 0


def test_a_teacher_does_not_remember_what_its_pupil_learns(remembering):
    loaded = load_model(remembering)
    assert Teacher(loaded.model, loaded.processor, tuple(loaded.model.config.id2label.values())).model.memory is None


def test_members_keep_their_memories(remembering, trained, tmp_path):
    both = [load_model(folder) for folder in (remembering, trained)]
    ensemble = FerEnsembleForImageClassification.from_members([(one.model, one.processor) for one in both])
    folder = save_portable(ensemble, both[0].processor, tmp_path / "ensemble")
    loaded = load_model(folder).model
    pixels = torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = sum(one.model(pixels).raw_logits.softmax(1) for one in both) / 2
        torch.testing.assert_close(loaded(pixels).raw_logits.softmax(1), expected, atol=2e-3, rtol=0)
        loaded.forget()
        alone = sum(load_model(trained).model(pixels).raw_logits.softmax(1) for _ in both) / 2
        torch.testing.assert_close(loaded(pixels).raw_logits.softmax(1), alone, atol=2e-3, rtol=0)
    assert save_portable(loaded, both[0].processor, tmp_path / "forgetful").is_dir()
    assert load_model(tmp_path / "forgetful").model.members[0].memory is None


def test_an_ensemble_has_no_memory_of_its_own(remembering):
    one = load_model(remembering)
    with pytest.raises(ValueError, match="only its members have: leave memory_rows at 0"):
        FerEnsembleForImageClassification.from_members([(one.model, one.processor)], memory_rows=3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory_rows": -1}, "memory_rows must be 0 or more and memory_size 1 or more; -1 and 32"),
        ({"memory_rows": 5, "memory_size": 0}, "memory_size 1 or more; 5 and 0"),
        ({"memory_rows": 5, "memory_width": 31}, "brings memory_width numbers down to memory_size; 31 and 32 were"),
        ({"memory_weight": 0.0}, "memory_weight and memory_temperature must be positive; 0.0 and"),
        ({"memory_temperature": -1.0}, "must be positive; 30.0 and -1.0"),
    ],
)
def test_a_config_that_says_nonsense_of_its_memory_is_refused(tiny_model_path, changes, said):
    config = load_model(tiny_model_path).model.config
    with pytest.raises(ValueError, match=said):
        type(config)(**{**config.to_dict(), **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--output": "{model}"}, "exists already; choose another path"),
        ({"--model": "{bare}"}, "has no recipe.yaml"),
        ({"--size": "500"}, "span at most"),
        ({"--size": "0"}, "memory_size 1 or more; 0 and 0 were given"),
        ({"--weight": "-1"}, "memory_weight and memory_temperature must be positive; -1.0 and 0.045 were given"),
    ],
)
def test_what_cannot_be_remembered_is_said(trained, tiny_model_path, tiny_data_path, tmp_path, changes, said):
    values = {"--model": str(trained), "--data": str(tiny_data_path), "--output": str(tmp_path / "out")}
    values |= {key: text.format(model=trained, bare=tiny_model_path) for key, text in changes.items()}
    with pytest.raises(ValueError, match=said):
        remember.main([part for pair in values.items() for part in pair])
    assert not (tmp_path / "out").exists()


def test_an_ensemble_is_refused_by_the_command(trained, tmp_path):
    one = load_model(trained)
    ensemble = FerEnsembleForImageClassification.from_members([(one.model, one.processor)])
    folder = save_portable(ensemble, one.processor, tmp_path / "ensemble")
    with pytest.raises(ValueError, match="give one of this project's single models"):
        remember.open_model(folder, "cpu")


def test_a_run_whose_pictures_stayed_on_disk_can_remember_them_too(trained, remembering, tiny_data_path, tmp_path):
    shutil.copytree(trained, tmp_path / "lazy")
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    recipe["data"]["in_memory"] = False
    (tmp_path / "lazy" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = tmp_path / "model"
    remember.main([
        "--model", str(tmp_path / "lazy"), "--data", str(tiny_data_path), "--output", str(folder), "--size", "8",
    ])  # fmt: skip
    ours, others = (load_model(one).model.memory for one in (folder, remembering))
    assert torch.equal(ours.values, others.values)
    assert (ours.keys.int() - others.keys.int()).abs().max() <= 1


LABELS = {0: "happy", 1: "sad", 2: "neutral"}
NARROW = {"id2label": LABELS, "classifier_hidden_sizes": [5]}


@pytest.mark.parametrize(
    ("model_class", "config", "widths"),
    [
        (ResNetSwishForImageClassification, ResNetSwishConfig(hidden_sizes=[8, 12], depths=[1, 1], **NARROW), (12, 32)),
        (ResNetSwishForImageClassification, ResNetSwishConfig(hidden_sizes=[8], depths=[1], **NARROW), (8,)),
        (TimmForImageClassification, TimmConfig(backbone="mobilenetv2_035", image_size=64, **NARROW), (1280, 4 * 32)),
        (TimmForImageClassification, TimmConfig(backbone="mobilenetv2_035", image_size=80, **NARROW), (1280, 4 * 32)),
        (
            TimmForImageClassification,
            TimmConfig(backbone="test_resnet", image_size=64, block_attention="se", **NARROW),
            (96, 4 * 192),
        ),
        (CBAM5CNNForImageClassification, CBAM5CNNConfig(id2label=LABELS), (4608, 4 * 256)),
    ],
)
def test_a_memory_compares_what_comes_before_the_dense_layers_and_a_finer_state(model_class, config, widths):
    torch.manual_seed(0)
    model = model_class(config).eval()
    size, channels = model.config.image_size, model.config.num_channels
    pixels = torch.randn(6, channels, size, size)
    with torch.inference_mode():
        states = model.features(pixels)[0]
        parts = model.look(states)
        assert tuple(part.shape for part in parts) == tuple((6, width) for width in widths)
        assert torch.equal(parts[0], model.pool(states[-1]))
        alone = model(pixels).raw_logits
        labels = (alone.argmax(1) + 1) % model.config.num_labels
        values = torch.eye(model.config.num_labels)[labels]
        model.remember(NeighbourMemory.of(parts, values, 4, 10.0, 0.03))
        assert model(pixels).raw_logits.argmax(1).tolist() == labels.tolist()
    again = type(model)(model.config)  # as from_pretrained builds it
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(pixels).raw_logits, model(pixels).raw_logits)
