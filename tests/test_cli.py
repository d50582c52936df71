"""The command line, and the wheel that carries it: a photo in, a line out, offline."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_hf.__main__ import main
from fer_hf.hub import DEFAULT_MODEL, default_model_path
from fer_hf.labels import FER7

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, astronaut) -> Path:
    """A folder with a portrait, a picture without a face, and a file that is no picture."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    astronaut.save(folder / "portrait.png")
    wide = Image.new("RGB", (1024, 512), "white")
    wide.paste(astronaut)
    wide.paste(astronaut, (512, 0))
    wide.save(folder / "two.png")
    Image.fromarray(data.coffee()).save(folder / "coffee.jpg")
    (folder / "bad.jpg").write_bytes(b"hello")
    return folder


@pytest.fixture
def run(monkeypatch, capsys, photos, tiny_model_path, tmp_path):
    """Runs the command in the folder of photos with the tiny model: exit code, lines on stdout, text on stderr."""
    monkeypatch.chdir(photos)
    monkeypatch.setenv("FER_MODEL", str(tiny_model_path))

    def run(*arguments: object) -> tuple[int, list[str], str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return run


def test_one_line_for_each_photo(run):
    code, lines, errors = run("portrait.png", "coffee.jpg", "two.png")
    assert (code, errors) == (0, "")
    face = rf"({'|'.join(FER7)}) \d\d% at \(\d+, \d+, \d+, \d+\)"
    assert re.fullmatch(f"portrait.png: {face}", lines[0])
    assert lines[1] == "coffee.jpg: no face found"
    assert re.fullmatch(f"two.png: {face}; {face}", lines[2])
    assert len(lines) == 3


def test_json_has_one_object_a_line_with_a_list_of_faces(run):
    code, lines, _ = run("portrait.png", "coffee.jpg", "--json")
    portrait, coffee = map(json.loads, lines)
    assert code == 0
    assert list(portrait) == ["photo", "faces", "skipped", "notes"]
    (face,) = portrait["faces"]
    assert list(face) == ["label", "score", "scores", "box", "detection_score"]
    assert list(face["scores"]) == list(FER7)
    assert 160 < face["box"]["xmin"] < 200
    assert coffee == {"photo": "coffee.jpg", "faces": [], "skipped": 0, "notes": []}


def test_a_bad_file_costs_one_sentence_and_the_others_are_done(run):
    code, lines, errors = run("bad.jpg", "portrait.png", "missing.png")
    assert code == 2
    assert [line.split(":")[0] for line in lines] == ["portrait.png"]
    sentences = errors.splitlines()
    assert len(sentences) == 2
    assert sentences[0].startswith("bad.jpg ")
    assert "missing.png" in sentences[1]
    assert all(sentence.endswith(".") for sentence in sentences)


def test_a_bad_model_costs_one_sentence(run, tmp_path):
    code, lines, errors = run("portrait.png", "--model", tmp_path / "nothing")
    assert (code, lines) == (2, [])
    assert errors.count("\n") == 1
    assert "there is no such folder" in errors


def test_the_file_of_an_exported_model_asks_for_its_backend(run, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"any")
    code, _, errors = run("portrait.png", "--model", tmp_path / "model.onnx")
    assert code == 2
    assert "--backend onnx" in errors


def test_tta_changes_the_scores(run):
    (plain,), (averaged,) = (run("portrait.png", "--json", *extra)[1] for extra in ((), ("--tta",)))
    plain, averaged = (json.loads(line)["faces"][0]["scores"] for line in (plain, averaged))
    assert plain != averaged
    assert plain == pytest.approx(averaged, abs=0.2)


def test_attention_is_drawn_into_the_face(run, tmp_path, astronaut):
    code, lines, _ = run("portrait.png", "--attention", tmp_path / "out.png")
    assert code == 0
    assert lines[0].endswith(f" | attention in {tmp_path / 'out.png'}")
    drawn = Image.open(tmp_path / "out.png")
    assert drawn.size == astronaut.size
    changed = np.abs(np.asarray(drawn, dtype=int) - np.asarray(astronaut, dtype=int)).sum(axis=2) > 0
    assert changed[60:170, 180:265].mean() > 0.2
    assert not changed[300:].any()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_several_attention_pictures_are_numbered_by_their_photos(run, tmp_path):
    code, lines, _ = run("coffee.jpg", "two.png", "portrait.png", "--json", "--attention", tmp_path / "out.webp")
    assert code == 0
    assert [json.loads(line).get("attention") for line in lines] == [
        None,
        str(tmp_path / "out-2.webp"),
        str(tmp_path / "out-3.webp"),
    ]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out-2.webp", "out-3.webp"]
    assert Image.open(tmp_path / "out-2.webp").format == "WEBP"


def test_a_large_photo_gets_a_bounded_attention_picture(run, tmp_path, astronaut):
    astronaut.resize((2048, 2048)).save(tmp_path / "large.jpg")
    assert run(tmp_path / "large.jpg", "--attention", tmp_path / "out.png")[0] == 0
    drawn = np.asarray(Image.open(tmp_path / "out.png"), dtype=int)
    assert drawn.shape == (1600, 1600, 3)
    changed = np.abs(drawn - np.asarray(Image.open(tmp_path / "large.jpg").resize((1600, 1600)), dtype=int)).max(2) > 60
    rows, columns = np.nonzero(changed)
    assert 100 < rows.min() < rows.max() < 600  # the face's place, scaled from 2048
    assert 500 < columns.min() < columns.max() < 900


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("out.txt", "name a .png, .jpg or .webp file"),
        ("nowhere/out.png", "its folder does not exist"),
        ("portrait.png", "would overwrite a photo"),
    ],
)
def test_attention_files_that_cannot_be_written_are_refused_first(run, capsys, out, says):
    with pytest.raises(SystemExit) as caught:
        run("portrait.png", "--attention", out)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_an_attention_picture_that_cannot_be_written_costs_no_result(run, tmp_path):
    (tmp_path / "out-1.png").mkdir()
    code, lines, errors = run("portrait.png", "two.png", "--attention", tmp_path / "out.png")
    assert code == 2
    assert re.fullmatch(r"portrait.png: \w+ \d\d% at \(.*\)", lines[0])
    assert lines[1].endswith(f" | attention in {tmp_path / 'out-2.png'}")
    assert errors == (
        f"The attention picture of portrait.png cannot be written to {tmp_path / 'out-1.png'} (Is a directory).\n"
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out-1.png", "out-2.png"]


@pytest.mark.parametrize("arguments", [["coffee.jpg", "coffee.jpg", "--json"], ["--help"]])
def test_a_reader_that_ends_first_is_no_error(arguments, photos, tiny_model_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fer_hf", *arguments],
            cwd=photos,
            env=os.environ
            | {
                "FER_MODEL": str(tiny_model_path),
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "",
                "HF_HUB_OFFLINE": "1",
            },
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_wheel_carries_the_default_model_and_answers_offline(tmp_path, tiny_model_path, photos):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "fer_hf", tree / "fer_hf", ignore=shutil.ignore_patterns("__pycache__"))
    shipped = default_model_path()
    shutil.copytree(shipped if shipped.is_dir() else tiny_model_path, tree / "model_cards" / DEFAULT_MODEL)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*build, "--wheel-dir", tmp_path, tree], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    assert {f"fer_hf/_default_model/{name}" for name in ("config.json", "model.safetensors")} <= set(names)
    assert {name.split("/")[0] for name in names} == {"fer_hf", "fer_hf-0.1.0.dist-info"}
    assert "fer_hf/demo/static/page.css" in names
    done = subprocess.run(
        [sys.executable, "-m", "fer_hf", photos / "portrait.png", "--json"],
        cwd=installed,
        env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(json.loads(done.stdout)["faces"]) == 1
