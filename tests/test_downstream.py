"""What people do with a transformers model works with ours, through the Auto classes and without trust_remote_code."""

import json

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

import fer_hf  # noqa: F401  (registers the classes)
from fer_hf.models.layers_memory import NeighbourMemory


def load(path, **options):
    return AutoModelForImageClassification.from_pretrained(path, **options)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "pixel_values": torch.randn(4, 1, 48, 48, generator=generator),
        "labels": torch.tensor([0, 3, 6, 3]),
    }


def test_auto_classes_use_the_installed_classes(tiny_model_path):
    assert type(load(tiny_model_path)).__module__ == "fer_hf.models.modeling_resnet_swish"
    assert AutoConfig.from_pretrained(tiny_model_path).image_size == 48
    processor = AutoImageProcessor.from_pretrained(tiny_model_path)
    assert type(processor).__module__ == "fer_hf.models.image_processing_fer"
    assert processor.face_template[2] == [0.5, 0.6]


def test_a_new_vocabulary_gets_a_new_head_and_keeps_the_rest(tiny_model_path):
    names = {0: "calm", 1: "tense", 2: "unsure"}
    fresh = load(tiny_model_path, id2label=names, ignore_mismatched_sizes=True)
    old = load(tiny_model_path)
    assert fresh.config.id2label == names
    assert fresh.config.label2id == {"calm": 0, "tense": 1, "unsure": 2}
    assert fresh.classifier.weight.shape == (3, 16)
    kept = {name for name, value in old.state_dict().items() if torch.equal(value, fresh.state_dict()[name])}
    assert set(old.state_dict()) - kept == {"classifier.weight", "classifier.bias"}
    assert fresh.classifier.weight.isfinite().all()
    assert fresh.classifier.weight.std() > 0


def test_what_was_fitted_to_the_old_head_goes_with_it(tiny_model_path, batch, tmp_path):
    old = load(tiny_model_path)
    with torch.inference_mode():
        parts = old.look(old.features(batch["pixel_values"])[0])
    old.remember(NeighbourMemory.of(parts, torch.eye(7)[batch["labels"]], 2, 10.0, 0.03))
    old.config.temperature, old.config.conformal_threshold, old.config.conformal_coverage = 0.5, 0.2, 0.9
    old.save_pretrained(tmp_path)
    again, info = load(tmp_path, output_loading_info=True)
    assert (again.config.temperature, again.config.memory_rows) == (0.5, 4)
    assert not info["missing_keys"]
    fresh = load(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert fresh.memory is None
    config = fresh.config
    assert (config.temperature, config.conformal_threshold, config.conformal_coverage) == (1.0, None, None)
    fresh.save_pretrained(tmp_path / "fresh")
    with torch.inference_mode():
        again, expected = (one(batch["pixel_values"]).logits for one in (load(tmp_path / "fresh"), fresh))
    torch.testing.assert_close(again, expected)


def test_labels_give_a_loss(tiny_model_path, batch):
    model = load(tiny_model_path)
    output = model(**batch)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.raw_logits, batch["labels"]))
    soft = F.one_hot(batch["labels"], 7) * 0.8 + 0.2 / 7
    expected = -(soft * output.raw_logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(model(batch["pixel_values"], labels=soft).loss, expected)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_gradient_checkpointing_changes_no_gradient(tiny_model_path, batch):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = load(tiny_model_path).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model(**batch).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_compiled_model_answers_the_same(tiny_model_path, batch):
    model = load(tiny_model_path)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits)


def stock_trainer(model, batch, folder, changes=None, **options):
    """transformers' Trainer for these rows, as to train and to evaluate on."""
    from transformers import Trainer, TrainingArguments

    rows = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(batch["pixel_values"], batch["labels"], strict=True)
    ]
    arguments = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    } | (changes or {})
    arguments = TrainingArguments(output_dir=str(folder), **arguments)
    return Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows, **options), rows


def test_the_stock_trainer_trains_and_its_output_loads(tiny_model_path, batch, tmp_path):
    model = load(tiny_model_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer, rows = stock_trainer(model, batch, tmp_path / "run")
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    assert trainer.predict(rows).label_ids.tolist() == [0, 3, 6, 3]
    assert not torch.equal(model.classifier.weight, before["classifier.weight"])
    trainer.save_model(tmp_path / "trained")
    saved = load(tmp_path / "trained")
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_stock_trainer_accumulates_to_the_step_of_the_whole_batch(tiny_model_path, batch, tmp_path):
    steps = []
    for size, accumulate in ((4, 1), (1, 4)):
        model = load(tiny_model_path)
        model.requires_grad_(False).classifier.requires_grad_(True)
        before = model.classifier.weight.clone()
        changes = {
            "max_steps": 1,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulate,
            "optim": "sgd",
            "max_grad_norm": 0,
        }
        trainer, _ = stock_trainer(model, batch, tmp_path / str(size), changes)
        model.train = lambda mode=True, model=model: model  # batch norms of single pictures would be others
        trainer.train()
        steps.append(model.classifier.weight.detach() - before)
    assert steps[0].abs().max() > 0
    torch.testing.assert_close(steps[1], steps[0])


def test_the_stock_trainer_hands_logits_to_metrics(tiny_model_path, batch, tmp_path):
    seen = []

    def compute_metrics(predictions):
        seen.append(predictions.predictions)
        return {"accuracy": (predictions.predictions.argmax(1) == predictions.label_ids).mean()}

    model = load(tiny_model_path)
    model.config.output_hidden_states = model.config.output_attentions = True
    trainer, _ = stock_trainer(model, batch, tmp_path, compute_metrics=compute_metrics)
    with torch.inference_mode():
        expected = model(batch["pixel_values"]).logits
    accuracy = (expected.argmax(1) == batch["labels"]).float().mean().item()
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(accuracy)
    torch.testing.assert_close(torch.from_numpy(seen[0]), expected)


def test_save_and_reload_is_exact(tiny_model_path, batch, tmp_path):
    model = load(tiny_model_path)
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path)(**batch).logits, model(**batch).logits)


def test_half_precision_file_with_float32_in_the_config_loads_upcast(tiny_model_path, tmp_path):
    load(tiny_model_path).half().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == "float16"
    assert load(tmp_path).dtype == torch.float16
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert load(tmp_path).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_answers_nearly_the_same(tiny_model_path, batch, dtype):
    half = load(tiny_model_path, dtype=dtype)
    with torch.inference_mode():
        found = half(batch["pixel_values"].to(dtype)).logits.float()
        expected = load(tiny_model_path)(batch["pixel_values"]).logits
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_a_device_map_is_taken(tiny_model_path, batch):
    model = load(tiny_model_path, device_map="cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    with torch.inference_mode():
        assert torch.equal(model(**batch).logits, load(tiny_model_path)(**batch).logits)
