"""Models by folder and by Hub id: what is whole loads the same, every fault gets one sentence that names it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from fer_hf.hub import ModelError, load_model, save_portable

REPO = "user/model"


@pytest.fixture(scope="module")
def portable(tiny_model_path, tmp_path_factory) -> Path:
    loaded = load_model(tiny_model_path)
    return save_portable(loaded.model, loaded.processor, tmp_path_factory.mktemp("portable") / "model")


@pytest.fixture
def folder(portable, tmp_path) -> Path:
    """A copy of the model that a test may break."""
    return Path(shutil.copytree(portable, tmp_path / "model"))


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that anybody slept, which nobody does."""
    seconds: list[float] = []
    for module in ("fer_hf.download", "huggingface_hub.utils._http", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.time.sleep", seconds.append)
    return seconds


@pytest.fixture
def repo(hub, portable, waits):
    """The stand-in for the Hub, with the model as user/model."""
    api = HfApi()
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=portable)
    return hub


def edit(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def sentence(name: object, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(name, **options)
    message = str(caught.value)
    assert message.startswith(f"The model {name}")
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_a_folder_loads_in_full_precision_and_evaluation_mode(portable, tiny_model_path):
    loaded = load_model(portable)
    assert (loaded.source, loaded.revision) == (str(portable), None)
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert type(loaded.model).__module__ == "fer_hf.models.modeling_resnet_swish"
    assert loaded.processor.face_template[0] == [0.3, 0.4]
    x = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.model(x).logits, load_model(tiny_model_path).model(x).logits, atol=2e-3, rtol=0)
    assert load_model(portable, dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_a_repository_loads_the_same_and_from_the_cache_without_the_hub(repo, portable):
    loaded = load_model(REPO)
    commit = HfApi().model_info(REPO).sha
    assert (loaded.source, loaded.revision) == (REPO, commit)
    x = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.model(x).logits, load_model(portable).model(x).logits)
    assert not repo.asked(r"\.py$")
    repo.fail("GET /api", times=99, status=503)
    again = load_model(REPO)
    assert again.revision == commit
    assert load_model(f"{REPO}@{commit}").source == f"{REPO}@{commit}"


def test_what_is_too_large_is_refused_before_it_is_fetched(repo):
    assert "and at most 0.00 GB are taken here" in sentence(REPO, max_bytes=1000)
    assert not repo.asked(r"safetensors$")
    assert load_model(REPO, max_bytes=10**9).source == REPO


def test_a_revision_is_pinned(repo, portable, folder):
    first = HfApi().model_info(REPO).sha
    edit(folder / "config.json", temperature=2.0)
    HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    assert load_model(REPO).model.config.temperature == 2.0
    pinned = load_model(f"{REPO}@{first}")
    assert (pinned.model.config.temperature, pinned.revision) == (1.0, first)
    assert load_model(REPO, revision=first).source == f"{REPO}@{first}"
    assert "no such revision" in sentence(f"{REPO}@nowhere")
    assert "give one of them" in sentence(f"{REPO}@{first}", revision="main")


def test_a_revision_may_hold_slashes(repo, folder):
    edit(folder / "config.json", temperature=2.0)
    request = HfApi().upload_folder(repo_id=REPO, folder_path=folder, create_pr=True).pr_revision
    assert request == "refs/pr/1"
    for loaded in (load_model(f"{REPO}@{request}"), load_model(REPO, revision=request)):
        assert (loaded.model.config.temperature, loaded.source) == (2.0, f"{REPO}@refs/pr/1")
    assert load_model(REPO).model.config.temperature == 1.0
    assert "no such revision" in sentence(f"{REPO}@feature/x")
    assert "there is no such folder" in sentence("a/b/c@refs/pr/1")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"drop": True}, "the Hub cannot be reached and the cache holds no complete copy"),
        ({"status": 401}, "asks for a login (401)"),
        ({"status": 403}, "refuses access (403)"),
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, "refuses access (403)"),
        ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, "no such repository or file (404)"),
        ({"status": 500}, "answers with an error (500)"),
        ({"status": 503}, "answers with an error (503)"),
        ({"status": 429}, "too many requests from here (429); try again later"),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, "(429); try again in 3600 seconds"),
    ],
)
def test_answers_of_the_hub_have_their_sentence(repo, fault, says, waits):
    repo.fail("/api/models/user/model", times=99, **fault)
    assert says in sentence(REPO)
    assert not [seconds for seconds in waits if seconds > 60]


def test_a_hub_that_is_not_there(repo):
    repo.stop()
    assert "cannot be reached" in sentence(REPO)


def test_a_missing_repository(repo):
    assert "(404)" in sentence("user/other") or "(401)" in sentence("user/other")


@pytest.mark.parametrize("headers", [{"Retry-After": "7"}, {"RateLimit": '"api";r=0;t=7'}])
def test_the_wait_that_a_429_asks_for_is_honoured(repo, waits, headers):
    repo.fail("/api/models/user/model", times=1, status=429, headers=headers)
    assert load_model(REPO).source == REPO
    assert 7 <= sum(waits) <= 8  # huggingface_hub itself adds a second where it is the one that waits


def test_half_a_body_is_fetched_to_its_end(repo, portable):
    repo.fail(r"GET /(?!api).*safetensors|GET /lfs", times=1, half_body=True)
    loaded = load_model(REPO)
    expected = load_model(portable).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())


def test_a_download_that_always_breaks_off(repo, waits):
    repo.fail(r"GET /(?!api).*safetensors|GET /lfs", times=99, drop=True)
    assert "the Hub cannot be reached and the cache holds no complete copy" in sentence(REPO)


def test_a_body_that_ends_early_without_an_error(repo, monkeypatch):
    """Some proxies cut a body and correct its length: huggingface_hub then raises a plain OSError."""
    real = "huggingface_hub.file_download.http_get"

    def cut(url, temp_file, **options):
        raise OSError("Consistency check failed: file should be of size 2 but has size 1")

    monkeypatch.setattr(real, cut)
    assert "the download broke off before a file was complete" in sentence(REPO)


def test_bytes_that_differ_from_their_hash_are_refused_and_removed(repo):
    repo.fail(r"GET /(?!api).*safetensors|GET /lfs", times=1, wrong_body=True)
    assert "model.safetensors do not have the hash" in sentence(REPO)
    assert load_model(REPO).source == REPO


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a/b/c", "~/model"])
def test_paths_that_do_not_exist(name):
    assert "there is no such folder" in sentence(name)


@pytest.mark.parametrize("name", ["not a model!", "user/name--x"])
def test_names_that_are_neither(name):
    assert "neither a folder nor a Hub id" in sentence(name)


def test_a_file_is_not_a_folder(folder):
    assert "this is a file; give the folder" in sentence(folder / "model.safetensors")
    (folder / "model.onnx").write_bytes(b"any")
    assert "run it with backend='onnx' (--backend onnx)" in sentence(folder / "model.onnx")


def test_a_name_that_no_file_can_have():
    assert "File name too long" in sentence("a" * 300)


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def pickled(folder: Path) -> None:
    weights = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    weights.unlink()


def swap_labels(folder: Path) -> None:
    labels = json.loads((folder / "config.json").read_text())["label2id"]
    labels["happy"], labels["sad"] = labels["sad"], labels["happy"]
    edit(folder / "config.json", label2id=labels)


def shorten_labels(folder: Path) -> None:
    edit(folder / "config.json", id2label={"0": "happy", "2": "sad"}, label2id=None)


def other_class_count(folder: Path) -> None:
    edit(folder / "config.json", id2label={"0": "happy", "1": "sad"}, label2id=None)


def lose_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        (remove("config.json"), "it has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "its config.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "its config.json is not a JSON object"),
        (remove("preprocessor_config.json"), "it has no preprocessor_config.json"),
        (remove("model.safetensors"), "it has no model.safetensors"),
        (pickled, "pickled weights are never read"),
        (pointer, "only a Git LFS pointer"),
        (truncate, "model.safetensors is truncated"),
        (swap_labels, "id2label and label2id contradict each other"),
        (shorten_labels, "must number the classes from 0 without gaps; it has 0, 2"),
        (lambda folder: edit(folder / "config.json", id2label=None, label2id=None), "its config.json has no id2label"),
        (other_class_count, "its weight classifier.bias is (7,), but its config asks for (2,)"),
        (lose_a_weight, "its weights lack classifier.weight (1 in all)"),
        (
            lambda folder: edit(folder / "config.json", hidden_dims=[1]),
            "unknown fer_resnet_swish config key 'hidden_dims'",
        ),
        (lambda folder: edit(folder / "preprocessor_config.json", mean=1), "unknown image processor key 'mean'"),
        (lambda folder: edit(folder / "config.json", model_type="other"), "brings its own Python code"),
        (lambda folder: edit(folder / "config.json", model_type="other", auto_map=None), "other"),
        (
            lambda folder: edit(folder / "preprocessor_config.json", image_processor_type="Other"),
            "brings its own Python code",
        ),
    ],
)
def test_every_broken_folder_has_its_sentence(folder, breakage, says):
    breakage(folder)
    assert says in sentence(folder)


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Path:
    """A model of a class that transformers ships."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    labels = {"id2label": {0: "happy", 1: "sad"}, "label2id": {"happy": 0, "sad": 1}}
    model = ViTForImageClassification(ViTConfig(**sizes, **labels, image_size=16, patch_size=8))
    return save_portable(model, ViTImageProcessor(size=16), tmp_path_factory.mktemp("stock") / "vit")


@pytest.mark.parametrize(
    ("file", "key", "value", "says"),
    [
        ("config.json", "image_size", "large", "Field 'image_size' with value 'large'"),
        ("config.json", "num_attention_heads", 0, "ZeroDivisionError: "),
        ("config.json", "patch_size", 0, "ZeroDivisionError: "),
        (
            "config.json",
            "hidden_act",
            "foo",
            "building it failed (KeyError: 'foo'); check the values in its config.json",
        ),
        ("config.json", "dtype", "float99", "has no attribute 'float99'"),
        ("config.json", "quantization_config", 5, "building it failed (AttributeError: "),
        ("preprocessor_config.json", "image_processor_type", 5, "building it failed (AttributeError: "),
        ("processor_config.json", "image_processor", 5, "building it failed (AttributeError: "),
    ],
)
def test_whatever_a_stock_class_raises_becomes_a_sentence(stock, tmp_path, file, key, value, says):
    broken = Path(shutil.copytree(stock, tmp_path / "vit"))
    (broken / file).touch()
    (broken / file).write_text((broken / file).read_text() or "{}")
    edit(broken / file, **{key: value})
    assert says in sentence(broken)


def test_who_stops_the_program_is_not_told_of_a_broken_model(stock, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_hf.hub._load", stop)
    with pytest.raises(KeyboardInterrupt):
        load_model(stock)


def test_foreign_code_runs_only_when_asked_for(tmp_path, folder):
    marker = tmp_path / "ran"
    code = (folder / "configuration_resnet_swish.py").read_text().replace("fer_resnet_swish", "foreign")
    (folder / "configuration_resnet_swish.py").write_text(f"{code}\nopen({str(marker)!r}, 'w').close()\n")
    edit(folder / "config.json", model_type="foreign")
    assert "trust_remote_code=True" in sentence(folder)
    assert not marker.exists()
    loaded = load_model(folder, trust_remote_code=True)
    assert marker.exists()
    assert type(loaded.model).__module__.startswith("transformers_modules.")


def test_code_beside_our_own_types_is_not_run(folder):
    (folder / "modeling_resnet_swish.py").write_text("raise SystemExit('ran')\n")
    assert type(load_model(folder).model).__module__ == "fer_hf.models.modeling_resnet_swish"
