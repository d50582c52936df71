"""The demo goes to a Space with a header that Spaces read, binaries as LFS, and nothing it does not need."""

import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download

from tests.data_folders import png, write_files
from tests.hub_stand_in.cards import validate
from training import push_space
from training.publishing import PublishError

HEADER = """title: Faces
sdk: gradio
sdk_version: 6.31.0
python_version: "3.12"
app_file: app.py
"""


@pytest.fixture
def project(tmp_path, tiny_model_path, monkeypatch) -> Path:
    """A small clone: app, package with a picture and a cache, and the embedded model."""
    root = tmp_path / "clone"
    files = {"app.py": b"print('demo')\n", "requirements.txt": b"gradio>=6.20,<7\n", "LICENSE": b"MIT\n"}
    files |= {
        "README.md": f"---\n{HEADER}---\n# fer_hf\nWords.\n".encode(),
        "fer_hf/__init__.py": b"",
        "fer_hf/demo/examples/a.png": png(0),
    }
    files |= {"fer_hf/__pycache__/a.pyc": b"\0", "tests/test_a.py": b"", ".git/config": b"", "fer_hf/.hidden": b""}
    write_files(root, files)
    shutil.copytree(tiny_model_path, root / "model_cards" / "tiny")
    monkeypatch.setattr(push_space, "ROOT", root)
    monkeypatch.setattr(push_space, "default_model_path", lambda: root / "model_cards" / "tiny")
    return root


def push(*options: str) -> None:
    push_space.main(["--repo-id", "user/demo", *options])


def readme() -> tuple[dict, str]:
    """Header and body of the Space's README.md."""
    text = Path(hf_hub_download("user/demo", "README.md", repo_type="space")).read_text()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_space_holds_what_it_needs(hub, project, capsys):
    push()
    files = {entry.path: entry for entry in HfApi().list_repo_tree("user/demo", repo_type="space", recursive=True)}
    weights = "model_cards/tiny/model.safetensors"
    assert {path for path, entry in files.items() if getattr(entry, "lfs", None)} == {
        "fer_hf/demo/examples/a.png",
        weights,
    }
    assert {"app.py", "requirements.txt", "LICENSE", "README.md", "fer_hf/__init__.py", weights} < set(files)
    assert not [path for path in files if "tests" in path or "pyc" in path or "hidden" in path or ".git/" in path]
    header, body = readme()
    assert body == "# fer_hf\nWords.\n"
    assert (header["sdk"], header["app_file"], header["python_version"]) == ("gradio", "app.py", "3.12")
    assert "preload_from_hub" not in header
    assert HfApi().space_info("user/demo").sdk == "gradio"
    push()
    assert "already there" in capsys.readouterr().out


def test_a_model_on_the_hub_takes_the_place_of_the_embedded_one(hub, project, tiny_model_path, capsys):
    with pytest.raises(PublishError, match="user/model: the Hub refuses it"):
        push("--model", "user/model@v1")
    HfApi().create_repo("user/model")
    HfApi().create_tag("user/model", tag="v1")
    with pytest.raises(PublishError, match=r"user/model@v1 has no config.json on the Hub"):
        push("--model", "user/model@v1")
    HfApi().upload_folder(repo_id="user/model", folder_path=tiny_model_path)
    push("--model", "user/model")
    header, _ = readme()
    assert header["models"] == ["user/model"]
    assert header["preload_from_hub"] == ["user/model config.json,preprocessor_config.json,model.safetensors"]
    assert HfApi().get_space_variables("user/demo")["FER_MODEL"].value == "user/model"
    files = HfApi().list_repo_files("user/demo", repo_type="space")
    assert not [path for path in files if path.startswith("model_cards")]
    assert "HF_TOKEN" not in capsys.readouterr().out
    HfApi().update_repo_settings("user/model", private=True)
    push("--model", "user/model")
    assert "user/model is private or gated: the Space loads it only with a secret HF_TOKEN" in capsys.readouterr().out


def test_the_embedded_model_serves_again_where_one_of_the_hub_did(hub, project, tiny_model_path, capsys):
    HfApi().create_repo("user/model")
    HfApi().upload_folder(repo_id="user/model", folder_path=tiny_model_path)
    push("--model", "user/model")
    HfApi().add_space_variable("user/demo", "OTHER", "stays")
    push("--dry-run")
    assert HfApi().get_space_variables("user/demo")["FER_MODEL"].value == "user/model"
    push()
    assert "FER_MODEL was user/model and is removed" in capsys.readouterr().out
    assert list(HfApi().get_space_variables("user/demo")) == ["OTHER"]
    assert "preload_from_hub" not in readme()[0]
    push()
    assert "FER_MODEL" not in capsys.readouterr().out


def test_a_dry_run_and_a_pull_request_leave_the_space_as_it_is(hub, project, capsys):
    push("--dry-run")
    assert "+ app.py" in capsys.readouterr().out
    assert not HfApi().repo_exists("user/demo", repo_type="space")
    push()
    (project / "app.py").write_text("print('new')\n")
    push("--create-pr")
    said = capsys.readouterr().out
    assert "-print('demo')" in said
    assert "+print('new')" in said
    assert f"{hub.url}/spaces/user/demo/discussions/1" in said
    assert Path(hf_hub_download("user/demo", "app.py", repo_type="space")).read_text() == "print('demo')\n"


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        ('python_version: "3.12"', "python_version: 3.12", "needs python_version as text"),
        ('python_version: "3.12"', 'python_version: "3.10"', "python_version is 3.10; transformers 5 needs 3.11"),
        ("sdk_version: 6.31.0", "sdk_version: 5.9.1", "sdk_version 5.9.1 does not fit 'gradio>=6.20,<7'"),
        ("app_file: app.py", "app_file: main.py", "should say sdk: gradio and app_file: app.py"),
        ("title: Faces", "", "needs title as text"),
        ("title: Faces", "title: [", "its header is no YAML"),
        ("---\n# fer_hf", "# fer_hf", "has no header of fields"),
    ],
)
def test_a_header_that_would_not_start_is_refused(hub, project, line, other, message):
    text = (project / "README.md").read_text()
    assert line in text
    (project / "README.md").write_text(text.replace(line, other))
    with pytest.raises(ValueError, match=r"^README.md") as caught:
        push()
    assert message in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["app.py", "requirements.txt", "fer_hf/__init__.py", "model_cards/tiny/model.safetensors"]
)
def test_a_missing_file_is_named(hub, project, name):
    (project / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}"):
        push()


def test_this_project_is_a_space():
    root = Path(push_space.__file__).parents[1]
    files = push_space.space_files(root, "user/model")
    assert {"app.py", "fer_hf/hub.py", "fer_hf/demo/page.py", "fer_hf/demo/static/page.css"} <= set(files)
    text = push_space.space_readme((root / "README.md").read_text(), (root / "requirements.txt").read_text(), None)
    assert validate(text, "space") == ([], [])
