"""A saved folder is complete: it loads, and answers the same, where this package does not exist."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from fer_hf.hub import load_model, save_portable
from tests.test_models import SYSTEMS, processor_of, shared

STRANGER = '''
"""Loads every folder as somebody without fer_hf does, and prints what each model answers to a picture."""
import json
import sys

sys.modules["fer_hf"] = None
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

torch.set_num_threads(1)
picture = Image.open(sys.argv[1])
answers = {}
for folder in sys.argv[2:]:
    model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    with torch.inference_mode():
        output = model(**processor(images=[picture], return_tensors="pt"))
    answers[folder] = {
        "logits": output.logits[0].tolist(),
        "module": type(model).__module__,
        "dtype": str(model.dtype),
    }
stock = pipeline("image-classification", model=sys.argv[2], trust_remote_code=True, device="cpu")
answers["pipeline"] = {row["label"]: row["score"] for row in stock(picture, top_k=7)}
print(json.dumps(answers))
'''


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "crop.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("portable")
    return {system: save_portable(shared(system), processor_of(shared(system)), root / system) for system in SYSTEMS}


@pytest.fixture(scope="module")
def answers(folders, picture, tmp_path_factory) -> dict:
    """What a process without fer_hf makes of the folders."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, picture, *folders.values()],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_stranger_gets_the_same_answers(system, folders, answers, picture):
    answer = answers[str(folders[system])]
    assert answer["module"].startswith("transformers_modules.")
    assert answer["dtype"] == "torch.float32"
    loaded = load_model(folders[system])
    assert type(loaded.model).__module__.startswith("fer_hf.models.")
    with torch.inference_mode():
        logits = loaded.model(**loaded.processor(images=[Image.open(picture)], return_tensors="pt")).logits[0]
    assert answer["logits"] == pytest.approx(logits.tolist(), abs=1e-5)


def test_the_stock_pipeline_answers_there_too(folders, answers, picture):
    loaded = load_model(folders[SYSTEMS[0]])
    with torch.inference_mode():
        logits = loaded.model(**loaded.processor(images=[Image.open(picture)], return_tensors="pt")).logits[0]
    expected = dict(zip(loaded.model.config.id2label.values(), logits.softmax(0).tolist(), strict=True))
    assert answers["pipeline"] == pytest.approx(expected, abs=1e-5)


def test_weights_are_half_size_and_say_float32(folders):
    folder = folders["resnet_swish"]
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["auto_map"]["AutoModelForImageClassification"] == (
        "modeling_resnet_swish.ResNetSwishForImageClassification"
    )
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        kinds = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds["classifier.weight"] == "F16"
    assert {kind for name, kind in kinds.items() if "running_" in name} == {"F32"}
    package = Path(sys.modules["fer_hf.models.modeling_resnet_swish"].__file__).parent
    for file in folder.glob("*.py"):
        assert file.read_bytes() == (package / file.name).read_bytes()
    assert {oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {"0o644"}
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "configuration_fer.py",
        "configuration_resnet_swish.py",
        "image_processing_fer.py",
        "layers_attention.py",
        "layers_memory.py",
        "modeling_fer.py",
        "modeling_resnet_swish.py",
    }


def test_saving_replaces_the_model_in_a_folder_and_nothing_else(tiny_model_path, tmp_path, monkeypatch):
    loaded = load_model(tiny_model_path)
    path = save_portable(loaded.model, loaded.processor, tmp_path / "models" / "best")
    (path / "modeling_ensemble.py").write_text("of another model")
    (path / "model-00001-of-00002.safetensors").write_bytes(b"of another model")
    (path / "README.md").write_text("my card")
    (path / "my_config.json").write_text("{}")
    (path / ".git").mkdir()
    (path / ".git" / "HEAD").write_text("ref: refs/heads/main")
    loaded.model.config.temperature = 1.5
    assert save_portable(loaded.model, loaded.processor, path) == path
    assert load_model(path).model.config.temperature == 1.5
    assert not (path / "modeling_ensemble.py").exists()
    assert [file.name for file in path.glob("*.safetensors")] == ["model.safetensors"]
    assert (path / "README.md").read_text() == "my card"
    assert (path / "my_config.json").read_text() == "{}"
    assert (path / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
    assert [entry.name for entry in path.parent.iterdir()] == ["best"]
    monkeypatch.chdir(path)
    with pytest.raises(ValueError, match=r"\. is the current directory or holds it"):
        save_portable(loaded.model, loaded.processor, ".")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "me.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="not a model folder"):
        save_portable(loaded.model, loaded.processor, photos)
    assert (photos / "me.jpg").read_bytes() == b"mine"


def test_a_failed_save_leaves_the_old_folder_and_no_rubbish(tiny_model_path, tmp_path, monkeypatch):
    loaded = load_model(tiny_model_path)
    path = save_portable(loaded.model, loaded.processor, tmp_path / "best")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    monkeypatch.setattr(type(loaded.processor), "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_portable(loaded.model, loaded.processor, path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


def test_weights_that_do_not_fit_half_precision_are_refused(tiny_model_path, tmp_path):
    loaded = load_model(tiny_model_path)
    with torch.no_grad():
        loaded.model.classifier.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"classifier\.weight is not finite in float16"):
        save_portable(loaded.model, loaded.processor, tmp_path / "best")
    assert not list(tmp_path.iterdir())


def test_a_stock_model_is_saved_without_code(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
        id2label={0: "happy", 1: "sad"},
        label2id={"happy": 0, "sad": 1},
    )
    path = save_portable(ViTForImageClassification(config), ViTImageProcessor(size=16), tmp_path / "vit")
    assert sorted(file.name for file in path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert load_model(path).model.dtype == torch.float32
