"""What a network takes over from a saved model of another network."""

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from fer_hf.hub import load_model
from fer_hf.labels import FER7, id2label, vocabulary
from training.config import load_recipe
from training.train import build_model, build_teachers

from .tiny_recipe import TINY, write


def built(tmp_path, start, data=None, **config):
    model = {"config": {**TINY["model"]["config"], **config}, "start_from": str(start)}
    return build_model(load_recipe(write(tmp_path, model=model, data=data or {})))[0].state_dict()


def test_another_network_takes_over_the_weights_that_fit(tiny_model_path, tmp_path, capsys):
    start = load_model(tiny_model_path).model.state_dict()
    model = built(tmp_path, tiny_model_path, attention="cbam")
    fitting = {name for name in start if name in model}
    assert fitting < start.keys()
    assert fitting < model.keys()
    assert "classifier.weight" in fitting
    assert all(torch.equal(model[name], start[name]) for name in fitting)
    said = capsys.readouterr().out
    assert f"parameters come from {tiny_model_path}; new: stages.0.0.attention.mlp.0," in said


def test_other_classes_keep_what_is_known_of_those_that_both_have(tiny_model_path, tmp_path):
    old = load_model(tiny_model_path).model
    start, seven = old.state_dict(), list(old.config.id2label.values())
    model = built(tmp_path, tiny_model_path, {"labels": "ferplus-soft", "source": {"classes": 8}}, dropout=0.3)
    assert torch.equal(model["stem.0.0.weight"], start["stem.0.0.weight"])
    for number, name in enumerate(vocabulary(8)):
        row = model["classifier.weight"][number]
        if name in seven:
            assert torch.equal(row, start["classifier.weight"][seven.index(name)])
            assert model["classifier.bias"][number] == start["classifier.bias"][seven.index(name)]
        else:
            assert all(not torch.equal(row, other) for other in start["classifier.weight"])


def test_models_of_others_are_refused_before_any_data_are_read(tmp_path):
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16)
    config.id2label = id2label(FER7)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size=16).save_pretrained(tmp_path / "vit")
    vit = str(tmp_path / "vit")
    with pytest.raises(ValueError, match="vit is a vit; only models of fer_hf can be started from"):
        build_model(load_recipe(write(tmp_path, model={"start_from": vit})))
    with pytest.raises(ValueError, match="vit is a vit; only models of fer_hf can teach"):
        build_teachers(load_recipe(write(tmp_path, distill={"teacher": vit})))


def test_a_start_that_hardly_fits_is_refused(tiny_model_path, tmp_path):
    with pytest.raises(ValueError, match=r"fits [\d,]+ of the [\d,]+ parameters.*same backbone"):
        built(tmp_path, tiny_model_path, hidden_sizes=[8, 16, 24], depths=[1, 1, 1])
