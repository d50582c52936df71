"""The pipeline as a whole: saved, sent to the Hub and read back; and what the README shows of it."""

import ast
import copy
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
import transformers

import fer_hf
from fer_hf import load_model, pipeline

ROOT = Path(__file__).parents[1]
TASK = "facial-expression-recognition"


@pytest.fixture
def fer(tiny_model_path):
    return pipeline(model=tiny_model_path, faces="crop")


@pytest.fixture(scope="module")
def face(astronaut):
    return astronaut.crop((170, 60, 280, 170))


def test_a_saved_pipeline_is_a_portable_folder_with_the_same_answers(fer, face, tmp_path):
    fer.save_pretrained(tmp_path / "saved")
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]
    files = {file.name for file in (tmp_path / "saved").iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "modeling_resnet_swish.py"} <= files
    assert not files & {"pipelines.py", "recognition.py"}
    loaded = load_model(tmp_path / "saved")
    expected = {name: weight.half().float() for name, weight in fer.model.named_parameters()}
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.model.named_parameters())
    assert loaded.processor.to_dict().items() >= fer.image_processor.to_dict().items()
    (answer,) = fer(face)
    for again in (pipeline(model=tmp_path / "saved"), transformers.pipeline(TASK, model=str(tmp_path / "saved"))):
        (row,) = again(face, faces="crop")
        assert (row["label"], row["box"]) == (answer["label"], None)
        assert row["scores"] == pytest.approx(answer["scores"], abs=1e-3)


def test_the_precision_has_two_names(tiny_model_path):
    for name in ("dtype", "torch_dtype"):
        assert pipeline(model=tiny_model_path, **{name: torch.bfloat16}).model.dtype == torch.bfloat16


def test_saving_leaves_the_model_as_it_was_and_saves_the_same_again(fer, tmp_path):
    weights = copy.deepcopy(fer.model.state_dict())
    fer.save_pretrained(str(tmp_path / "saved"))
    first = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    fer.save_pretrained(tmp_path / "saved")
    assert {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()} == first
    assert not hasattr(fer.model.config, "custom_pipelines")
    assert "custom_pipelines" not in json.loads(first["config.json"])
    assert all(torch.equal(weight, weights[name]) for name, weight in fer.model.state_dict().items())
    assert fer.model.dtype == torch.float32


def test_a_saved_pipeline_goes_to_the_hub(fer, face, tmp_path, hub):
    fer.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="user/saved", commit_message="A first one")
    fer.push_to_hub("user/pushed")
    for name in ("user/saved", "user/pushed"):
        assert pipeline(model=name)(face, faces="crop")[0]["scores"] == pytest.approx(fer(face)[0]["scores"], abs=1e-3)
    assert load_model(tmp_path / "saved").source == str(tmp_path / "saved")


def test_what_saving_cannot_do_is_refused_before_anything_is_written(fer, tmp_path):
    with pytest.raises(ValueError, match=r"without push_to_hub=True, repo_id, variant would have no effect"):
        fer.save_pretrained(tmp_path / "saved", repo_id="user/name", variant="fp16")
    assert not list(tmp_path.iterdir())
    (tmp_path / "me.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="not a model folder"):
        fer.save_pretrained(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["me.jpg"]


def test_a_pipeline_can_be_sent_to_another_process(fer, face):
    again = pickle.loads(pickle.dumps(fer))
    assert again(face) == fer(face)


@pytest.mark.parametrize("foreign", [{"device_map": "auto"}, {"model_kwargs": {}}, {"token": "x"}])
def test_what_only_transformers_loading_knows_is_refused(foreign, tiny_model_path):
    with pytest.raises(ValueError, match=f"{next(iter(foreign))} is not taken here"):
        pipeline(model=tiny_model_path, **foreign)


def test_no_image_processor_means_the_models_own(fer, face, tiny_model_path):
    assert pipeline(model=tiny_model_path, image_processor=None, faces="crop")(face) == fer(face)


def test_the_readme_shows_what_its_example_prints():
    """To the pixel, but not where the last digits of another machine decide which one."""
    example = re.search(r"\n# (\w+) ([\d.]+) (\{.*\})\n", (ROOT / "README.md").read_text())
    label, score, box = example[1], float(example[2]), ast.literal_eval(example[3])
    recognizer = pipeline(TASK).recognizer
    (found,) = recognizer.recognize(Path(fer_hf.__file__).parent / "demo" / "examples" / "astronaut.jpg").predictions
    assert (found.label, round(found.score, 2)) == (label, score)
    assert found.face.box_xyxy == pytest.approx(tuple(box.values()), abs=0.6)
