"""A model folder goes to the Hub whole, checked and unchanged, or not at all."""

import json
import shutil
import subprocess

import pytest
import torch
import yaml
from huggingface_hub import HfApi

import fer_hf  # noqa: F401 - makes the Auto classes know our models
from fer_hf.hub import load_model, save_portable
from training import card, cost, load_back, push_to_hub
from training import eval as evaluation
from training.config import dump_recipe, load_recipe


@pytest.fixture(scope="module")
def published(tiny_model_path, tiny_data_path, tmp_path_factory):
    """A complete model folder: portable code, weights, recipe, report, figures and card."""
    folder = tmp_path_factory.mktemp("cards") / "tiny"
    loaded = load_model(tiny_model_path)
    save_portable(loaded.model, loaded.processor, folder)
    recipe = load_recipe("training/recipes/shipped/resnet_swish.yaml")
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    arguments = ["--model", folder, "--data", tiny_data_path, "--output", folder / "report.json", "--resamples", "20"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "measure_ms_per_face", lambda model: 1.0)
        evaluation.main([str(argument) for argument in arguments])
    card.main(["--model", str(folder)])
    return folder


@pytest.fixture
def model(published, tmp_path):
    return shutil.copytree(published, tmp_path / "tiny")


@pytest.fixture
def unchecked(monkeypatch):
    """Loading back, which takes a process and seconds, is left out."""
    monkeypatch.setattr(push_to_hub, "load_back", lambda *_: None)


def push(model, *options) -> None:
    push_to_hub.main(["--model", str(model), "--repo-id", "user/tiny", *options])


def writes(hub) -> list[str]:
    return [request.line for request in hub.asked("^(PUT|DELETE) |POST .*/(commit|create)")]


def test_a_model_arrives_whole_and_loads_where_fer_hf_is_not_installed(hub, model, capsys):
    push(model)
    assert capsys.readouterr().out.splitlines()[-1].endswith("the model loads and answers the same")
    local = {str(path.relative_to(model)) for path in model.rglob("*")}
    assert set(HfApi().list_repo_files("user/tiny")) == local | {".gitattributes"}
    assert {"modeling_resnet_swish.py", "report.json", "confusion.png"} <= local
    info = HfApi().model_info("user/tiny")
    assert (info.pipeline_tag, info.card_data.license) == ("image-classification", "mit")
    report = json.loads((model / "report.json").read_text())
    figures = {result.metric_name: result.metric_value for result in info.card_data.eval_results}
    assert figures["Accuracy"] == report["metrics"]["accuracy"]["value"]
    assert hub.asked("GET /user/tiny/resolve/.*/modeling_resnet_swish.py")  # the child ran the code from the Hub


@pytest.mark.parametrize(
    ("child", "message"),
    [
        ((1, "", "Traceback ...\nOSError: no file named model.safetensors\n"), "does not load: OSError: no file named"),
        ((0, '{"classes": true, "logits": false}\n', ""), "loads, but not the same: logits differ"),
    ],
)
def test_what_does_not_load_back_the_same_is_said(hub, model, monkeypatch, child, message):
    monkeypatch.setattr(push_to_hub.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, *child))
    with pytest.raises(ValueError, match=rf"user/tiny@\w{{8}} {message}"):
        push(model)


def test_a_model_in_half_precision_answers_when_loaded_back(tiny_model_path, tmp_path):
    loaded = load_model(tiny_model_path)
    loaded.model.half().save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    _, pixel_values, logits = load_back.answers(str(tmp_path))
    with torch.no_grad():
        expected = load_model(tiny_model_path).model(pixel_values).logits
    assert logits.dtype == torch.float16
    torch.testing.assert_close(logits.float(), expected, atol=0.01, rtol=0.01)


def test_a_dry_run_shows_the_difference_and_sends_nothing(hub, model, capsys, unchecked):
    (model / "notes.md").write_text("More words.")
    card.main(["--model", str(model)])
    push(model, "--dry-run")
    assert "+ model.safetensors" in capsys.readouterr().out
    assert writes(hub) == []
    push(model)
    before = len(writes(hub))
    capsys.readouterr()

    config = json.loads((model / "config.json").read_text()) | {"conformal_coverage": 0.8}
    (model / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copy(model / "confusion.png", model / "samples.webp")
    (model / "notes.md").unlink()
    card.main(["--model", str(model)])
    push(model, "--dry-run")
    said = capsys.readouterr().out.splitlines()
    size = {name: (model / name).stat().st_size for name in ("samples.webp", "README.md", "config.json")}
    assert said[said.index(f"{hub.url}/user/tiny") + 1 : said.index("--- there/README.md")] == [
        f"+ samples.webp ({size['samples.webp']:,} bytes)",
        f"~ README.md ({size['README.md']:,} bytes)",
        f"~ config.json ({size['config.json']:,} bytes)",
        "- notes.md",
        f"= {len(list(model.iterdir())) - 3} unchanged",
    ]
    assert {"-More words.", '+  "conformal_coverage": 0.8,'} <= set(said)
    assert said[-1] == "dry run: nothing was sent"
    assert len(writes(hub)) == before


def test_the_same_model_is_not_sent_twice(hub, model, capsys, unchecked):
    push(model)
    before = len(writes(hub))
    push(model)
    assert "already there, at commit" in capsys.readouterr().out
    assert len(writes(hub)) == before


def test_a_pull_request_leaves_main_as_it_is(hub, model, capsys, unchecked):
    HfApi().create_repo("user/tiny")
    push(model, "--create-pr")
    assert f"{hub.url}/user/tiny/discussions/1" in capsys.readouterr().out
    assert HfApi().list_repo_files("user/tiny") == [".gitattributes"]
    assert "model.safetensors" in HfApi().list_repo_files("user/tiny", revision="refs/pr/1")


def test_a_pull_request_whose_answer_was_lost_is_found_again(hub, model, capsys, unchecked):
    HfApi().create_repo("user/tiny")
    hub.fail("POST .*/commit/", drop=True, after=True)
    with pytest.raises(push_to_hub.PublishError, match="run the command again"):
        push(model, "--create-pr")
    push(model, "--create-pr")
    assert f"{hub.url}/user/tiny/discussions/1: every file has its hash" in capsys.readouterr().out
    assert [request.num for request in HfApi().get_repo_discussions("user/tiny")] == [1]


def test_a_new_repository_may_be_private_and_a_public_one_stays_visible(hub, model, unchecked):
    push(model, "--private")
    assert HfApi().model_info("user/tiny").private is True
    HfApi().update_repo_settings("user/tiny", private=False)
    (model / "notes.md").write_text("More words.")
    card.main(["--model", str(model)])
    with pytest.raises(ValueError, match="user/tiny exists and is public"):
        push(model, "--private")


@pytest.mark.parametrize("name", push_to_hub.REQUIRED)
def test_an_incomplete_folder_is_refused(hub, model, name):
    (model / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}"):
        push(model)
    assert hub.requests == []


def test_figures_that_differ_from_the_report_are_refused(hub, model):
    readme = (model / "README.md").read_text()
    metadata = yaml.safe_load(readme.split("---\n")[1])
    value = metadata["model-index"][0]["results"][0]["metrics"][0]["value"]
    (model / "README.md").write_text(readme.replace(f"value: {value}", "value: 0.99", 1))
    with pytest.raises(ValueError, match=r"README.md, line \d+ is ' *value: 0.99' where .* training/card.py"):
        push(model)
    assert hub.requests == []


def test_a_report_of_other_weights_or_classes_is_refused(hub, model):
    report = json.loads((model / "report.json").read_text())
    for key, value, message in (("weights_sha256", "0" * 64, "other weights"), ("classes", ["a"], "other classes")):
        (model / "report.json").write_text(json.dumps(report | {key: value}))
        with pytest.raises(ValueError, match=message):
            push(model)
    (model / "report.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        push(model)


def test_a_recipe_that_names_places_of_this_machine_is_refused(hub, model):
    (model / "recipe.yaml").write_text("model: {start_from: /home/anna/best}\nphases: [{epochs: 1}]\n")
    with pytest.raises(ValueError, match="names /home/anna/best, a place on this machine"):
        push(model)


def test_missing_code_pictures_and_pickles_are_named(hub, model):
    (model / "layers_attention.py").rename(model / "layers.txt")
    with pytest.raises(ValueError, match=r"imports layers_attention.py, which is missing"):
        push(model)
    (model / "layers.txt").rename(model / "layers_attention.py")
    (model / "confusion.png").rename(model / "c.txt")
    with pytest.raises(ValueError, match=r"README.md shows confusion.png, which is not in the folder"):
        push(model)
    (model / "c.txt").rename(model / "confusion.png")
    (model / "notes.md").write_text("See [more](layers.txt).\n")
    (model / "layers.txt").write_text("words")
    card.main(["--model", str(model)])
    with pytest.raises(ValueError, match=r"README.md shows layers.txt, which is not sent; sent are .json,"):
        push(model)
    (model / "notes.md").unlink()
    card.main(["--model", str(model)])
    (model / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pytorch_model.bin is pickled"):
        push(model)
    (model / "pytorch_model.bin").unlink()
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="only a Git LFS pointer"):
        push(model)


@pytest.mark.parametrize(
    ("pattern", "fault", "message"),
    [
        ("POST /api/repos/create", {"status": 401}, "does not accept the token"),
        ("POST /api/repos/create", {"status": 403}, "does not let this token write there"),
        ("GET /api/models/user/tiny", {"status": 429, "headers": {"Retry-After": "30"}}, "try again in 30 seconds"),
        ("GET /api/models/user/tiny", {"drop": True}, "cannot be reached or broke off"),
        ("POST .*/commit/", {"status": 502}, r"an error \(502\); run the command again"),
        ("POST .*/commit/", {"status": 412}, "has changed since it was compared"),
        ("PUT /lfs/", {"status": 400}, r"refuses it \(400\): The stand-in was told to fail"),
        ("POST /api/validate-yaml", {"half_body": True}, "cannot be reached or broke off"),
    ],
)
def test_each_fault_of_the_hub_is_one_sentence_and_nothing_is_half_published(
    hub, model, unchecked, pattern, fault, message
):
    hub.fail(pattern, **fault)
    with pytest.raises(push_to_hub.PublishError, match=message) as caught:
        push(model)
    assert str(caught.value).startswith("user/tiny: ")
    assert "\n" not in str(caught.value)
    if HfApi().repo_exists("user/tiny"):
        assert HfApi().list_repo_files("user/tiny") == [".gitattributes"]
    push(model)  # and the next try finds nothing in its way
    assert "model.safetensors" in HfApi().list_repo_files("user/tiny")
    stored = [request.path for request in hub.asked("^PUT /lfs/") if request.status == 200]
    assert len(stored) == len(set(stored))


@pytest.mark.parametrize(
    ("name", "message"), [("tiny", "has no owner"), ("user/a b", "is no name"), ("", "is no name")]
)
def test_a_name_that_is_none_is_refused(hub, model, name, message):
    with pytest.raises(ValueError, match=message):
        push_to_hub.main(["--model", str(model), "--repo-id", name])
