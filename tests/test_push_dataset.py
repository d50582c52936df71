"""A folder, CSV or zip file becomes a clean data set on the Hub: whole or not at all, and once."""

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, hf_hub_download
from PIL import ExifTags, Image

from fer_hf.data.sources import load_source
from tests import tiny_recipe
from tests.data_folders import VOTES_HEADER, class_folders, fer_csv, picture, pixel_text, png, write_files
from tests.pictures import encode
from training import push_dataset, train
from training.dataset_rows import choose_rows
from training.publishing import PublishError

REQUIRED = ("--license", "cc-by-4.0", "--consent", "Everyone shown has agreed in writing.")
QUICK = (*REQUIRED, "--quick")
SECRET = b"Anna Beispiel"


def push(source, *options, repo="user/faces") -> None:
    push_dataset.main(["--source", str(source), "--repo-id", repo, *QUICK, *map(str, options)])


def refused(source, *options) -> str:
    """The sentence with which a push ends, after which the repository is not there."""
    with pytest.raises(ValueError) as caught:
        push(source, *options)
    assert not HfApi().repo_exists("user/faces", repo_type="dataset")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(repo="user/faces", **options) -> dict[str, list[dict]]:
    """Every row of every split as it is in the parquet files on the Hub, pictures not decoded."""
    found = {}
    for path in HfApi().list_repo_files(repo, repo_type="dataset", **options):
        if path.endswith(".parquet"):
            table = pq.read_table(hf_hub_download(repo, path, repo_type="dataset", **options))
            found.setdefault(path.split("/")[1].split("-")[0], []).extend(table.to_pylist())
    return found


class Nursery:
    """A process that has imported everything and forks a child for each run, so that a kill costs no import."""

    SCRIPT = """
import json, os, sys
from training import push_dataset
for line in sys.stdin:
    child = os.fork()
    if not child:
        push_dataset.main(json.loads(line))
        os._exit(0)
    print("child", child, flush=True)
    print("status", os.waitpid(child, 0)[1], flush=True)
"""

    def __init__(self, environment: dict[str, str]):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT], env=environment, **streams)
        self.child = 0

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def run(self, command: list[str]) -> int:
        """The status with which a push of these arguments ended; 9 where it was killed."""
        self.child = 0
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            word, _, number = line.strip().partition(" ")
            if word == "child":
                self.child = int(number)
            elif word == "status":
                return int(number)
        raise EOFError("the process that forks has ended")

    def kill(self) -> None:
        assert self.child > 0  # 0 would be this whole group of processes
        os.kill(self.child, signal.SIGKILL)


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.fixture
def faces(tmp_path) -> Path:
    """Forty pictures in two classes."""
    return class_folders(tmp_path / "faces", {"Happiness": 20, "sad": 20})


def test_numbers_are_published_as_what_their_numbering_says(hub, tmp_path):
    push(class_folders(tmp_path / "numbers", {"0": 12, "1": 12}), "--numbering", "affectnet")
    split = datasets.load_dataset("user/faces", split="train")
    assert {split.features["label"].int2str(label) for label in split["label"]} == {"neutral", "happy"}


def test_nothing_but_pixels_is_published(hub, tmp_path, faces):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = SECRET.decode()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 51.0, 29.5)})
    photo = picture(99, 60, colour=True).crop((0, 0, 60, 40))
    files = {
        "Happiness/Anna Beispiel.jpg": encode(photo, "JPEG", exif=exif.tobytes(), comment=SECRET, quality=95),
        "sad/Anna Beispiel.heic.jpg": encode(picture(98, 64, colour=True), "HEIC", exif=exif.tobytes()),
        "sad/tail.png": png(97) + SECRET,
    }
    assert all(SECRET in data for data in files.values())
    push(write_files(faces, files))
    published = [row for of_split in rows().values() for row in of_split]
    assert len(published) == 43
    for row in published:
        data = row["image"]["bytes"]
        assert SECRET not in data
        assert b"Exif" not in data
        assert row["image"]["path"].split(".")[0] == row["row_id"]
        assert not Image.open(io.BytesIO(data)).getexif()
    sizes = [Image.open(io.BytesIO(row["image"]["bytes"])).size for row in published]
    assert sizes.count((40, 60)) == 1  # upright, as its orientation said
    for file in (hub.store.root / "datasets/user/faces").rglob("*"):
        assert file.is_dir() or b"Beispiel" not in file.read_bytes()


def test_it_loads_streams_and_trains(hub, faces, tmp_path):
    push(faces, "--splits", "validation=0.25")
    whole = datasets.load_dataset("user/faces")
    assert {name: len(split) for name, split in whole.items()} == {"train": 30, "validation": 10}
    names = whole["train"].features["label"].names
    assert names == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    assert sorted(map(names.__getitem__, whole["validation"]["label"])) == ["happy"] * 5 + ["sad"] * 5
    streamed = datasets.load_dataset("user/faces", split="train", streaming=True)
    assert [row["row_id"] for row in streamed] == whole["train"]["row_id"][:]

    original = {pixels(file.read_bytes()): file.parent.name for file in faces.rglob("*.png")}
    for split in load_source("user/faces").values():
        for row in split:
            folder = original.pop(row["image"].convert("RGB").tobytes())
            assert names[row["label"]] == {"Happiness": "happy", "sad": "sad"}[folder]
    assert original == {}

    recipe, output = tiny_recipe.write(tmp_path, epochs=1), tmp_path / "run"
    train.main(["--recipe", str(recipe), "--data", "user/faces", "--output", str(output), "--tracker", "none"])
    assert (output / "best" / "model.safetensors").is_file()


def test_copies_conflicts_and_empty_pictures_stay_behind(hub, faces, capsys):
    write_files(faces, {"sad/copy.png": (faces / "sad/000.png").read_bytes()})
    write_files(faces, {"sad/wrong.png": (faces / "Happiness/000.png").read_bytes()})
    write_files(faces, {"sad/grey.png": encode(Image.new("L", (48, 48), 7), "PNG"), "sad/broken.png": b"\x89PNG"})
    push(faces)
    said = capsys.readouterr().out
    assert "left out: sad/copy.png: it is a copy of a picture that is here (sad/000.png)" in said
    assert "left out: sad/wrong.png: equal pictures have different labels (happy and sad)" in said
    assert "left out: sad/grey.png: it has one colour only" in said
    published = rows()
    assert {name: len(of_split) for name, of_split in published.items()} == {"test": 4, "train": 31, "validation": 4}
    ids = [row["row_id"] for of_split in published.values() for row in of_split]
    assert len(set(ids)) == 39
    card = Path(hf_hub_download("user/faces", "README.md", repo_type="dataset")).read_text()
    assert "1 row could not be read and is not here" in card
    assert "2 rows are not here, because equal pictures have different labels: happy and sad (2)." in card
    assert "1 row is not here, because it is a copy of a picture that is here." in card
    assert "| happy | 15 | 2 | 2 |" in card
    assert "Everyone shown has agreed in writing." in card
    info = HfApi().dataset_info("user/faces")
    assert info.card_data.license == "cc-by-4.0"
    assert info.card_data.task_categories == ["image-classification"]
    sheet = Image.open(hf_hub_download("user/faces", "samples.png", repo_type="dataset"))
    assert sheet.size == (110 + 8 * 100, 2 * 100)  # happy and sad


def test_no_subject_is_in_two_splits_and_none_is_named(hub, tmp_path):
    files = {
        f"{label}/S{subject:03d}_{session:03d}_00000001.png": png(100 * subject + session)
        for subject in range(12)
        for session, label in enumerate(("happy", "happy", "sad", "sad"))
    }
    push(write_files(tmp_path / "ck", files), "--splits", "validation=0.25")
    of_split = {name: {row["subject"] for row in split} for name, split in rows().items()}
    assert not of_split["train"] & of_split["validation"]
    assert of_split["train"] | of_split["validation"] == {f"subject-{n:04d}" for n in range(1, 13)}
    together = {}
    for split in rows().values():
        for row in split:
            together.setdefault(row["subject"], set()).add(pixels(row["image"]["bytes"]))
    of_three = {pixels(png(300 + session)) for session in range(4)}
    assert of_three in together.values()


def test_near_copies_stay_in_one_split_and_the_audit_is_published(hub, tmp_path, monkeypatch):
    files = {}
    for seed in range(12):
        photo = picture(seed)
        name = f"{'happy' if seed % 2 else 'sad'}/{seed:02d}"
        files |= {f"{name} a.png": png(seed), f"{name} b.jpg": encode(photo, "JPEG", quality=60)}
        files[f"{name} c.png"] = encode(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG")
    monkeypatch.setattr(push_dataset, "default_model_path", lambda: tmp_path / "none")
    arguments = ["--source", write_files(tmp_path / "faces", files), "--repo-id", "user/faces", *REQUIRED]
    push_dataset.main([*map(str, arguments), "--splits", "validation=0.25"])
    audit = json.loads(Path(hf_hub_download("user/faces", "audit.json", repo_type="dataset")).read_text())
    assert sum(audit["rows"].values()) == 36
    assert audit["rows"]["validation"] in (6, 9, 12)  # whole threes
    assert audit["near_duplicates"]["pairs"] >= 24
    assert audit["near_duplicates"]["across"] == []
    assert audit["faces"]["sampled"] == 36
    assert not [finding for finding in audit["findings"] if finding["level"] == "leak"]
    card = Path(hf_hub_download("user/faces", "README.md", repo_type="dataset")).read_text()
    assert all(f"- {finding['text']}" in card for finding in audit["findings"])
    page = Path(hf_hub_download("user/faces", "audit.html", repo_type="dataset")).read_text()
    assert page.count("<img") > 12
    assert str(tmp_path) not in page + card + json.dumps(audit)


def test_a_new_split_has_nothing_like_the_sources_own(tmp_path):
    files = {}
    for seed in range(40):
        name = f"{'happy' if seed % 2 else 'sad'}/{seed:02d}"
        files[f"train/{name}.png"] = png(seed)
        if seed < 20:
            files[f"validation/{name}.jpg"] = encode(picture(seed), "JPEG", quality=60)
    source = load_source(write_files(tmp_path / "faces", files))
    chosen = choose_rows(source, {"validation": 0.1, "test": 0.4}, seed=0)
    assert {name: len(split) for name, split in chosen.splits.items()} == {"train": 32, "validation": 20, "test": 8}
    assert min(int(row_id[-6:-4]) for row_id in chosen.splits["test"]["row_id"]) >= 20
    without = choose_rows(source, {"test": 0.4}, seed=0, near=False)
    assert min(int(row_id[-6:-4]) for row_id in without.splits["test"]["row_id"]) < 20


def test_a_csv_keeps_its_splits_and_votes(hub, tmp_path):
    usages = ["Training"] * 6 + ["PublicTest"] * 3 + ["PrivateTest"] * 3
    csv = fer_csv(tmp_path / "fer2013.csv", [(i % 3, pixel_text(i), usage) for i, usage in enumerate(usages)])
    votes = tmp_path / "fer2013new.csv"
    votes.write_text(VOTES_HEADER + "".join(f"{usage},a.png,{i},1,0,0,0,0,0,0,0,0\n" for i, usage in enumerate(usages)))
    push(csv, "--votes", votes)
    published = rows()
    assert {name: len(split) for name, split in published.items()} == {"train": 6, "validation": 3, "test": 3}
    assert {row["votes"][0] for row in published["test"]} == {9, 10, 11}
    for row in published["validation"]:
        assert pixels(row["image"]["bytes"]) == picture(row["votes"][0]).convert("RGB").tobytes()


def test_a_zip_file_is_read_like_its_folder(hub, tmp_path, faces):
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for file in faces.rglob("*.png"):
            opened.write(file, Path("my faces") / file.relative_to(faces))
    push(archive)
    ids = {row["row_id"] for split in rows().values() for row in split}
    push(faces, repo="user/same")
    assert ids == {row["row_id"] for split in rows("user/same").values() for row in split}
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("../evil.png", b"x")
    HfApi().delete_repo("user/faces", repo_type="dataset")
    assert "'../evil.png' leads outside" in refused(archive)
    assert not (tmp_path / "evil.png").exists()


def test_a_second_version_replaces_the_first(hub, faces, capsys):
    push(faces, "--shard-mb", "0.01")
    first = HfApi().list_repo_files("user/faces", repo_type="dataset")
    push(faces, "--shard-mb", "0.01")
    assert "already there, at commit" in capsys.readouterr().out
    write_files(faces, {"sad/new.png": png(1000)})
    push(faces)
    second = HfApi().list_repo_files("user/faces", repo_type="dataset")
    assert len([path for path in first if path.startswith("data/train-")]) > 1
    assert [path for path in second if path.startswith("data/train-")] == ["data/train-00000-of-00001.parquet"]
    assert sum(map(len, rows().values())) == 41


def test_a_dry_run_sends_nothing_and_keeps_the_files(hub, faces, tmp_path, capsys):
    push(faces, "--dry-run", "--work", tmp_path / "work")
    folder = Path(capsys.readouterr().out.split("look at ")[1].strip())
    assert (folder / "README.md").is_file()
    assert len(pq.read_table(folder / "data")) == 40
    assert hub.requests == []


def test_colours_that_come_later_are_published(hub, tmp_path):
    for colour in (False, True):
        for seed in range(40):
            image = picture(seed, colour=True)
            name = f"{'happy' if seed % 2 else 'sad'}/{seed:02d}.png"
            write_files(tmp_path / "faces", {name: encode(image if colour else image.convert("L"), "PNG")})
        push(tmp_path / "faces", "--work", tmp_path / "work", *(() if colour else ("--dry-run",)))
    published = [row["image"]["bytes"] for split in rows().values() for row in split]
    assert {Image.open(io.BytesIO(data)).mode for data in published} == {"RGB"}


def test_a_named_work_folder_keeps_what_is_not_of_a_push(hub, faces, tmp_path):
    work = write_files(tmp_path / "work", {"files-2024/notes.txt": b"mine", "files-list.txt": b"mine"})
    push(faces, "--work", work, "--splits", "test=0.125")
    assert sorted(path.name for path in work.iterdir()) == ["files-2024", "files-list.txt"]
    card = Path(hf_hub_download("user/faces", "README.md", repo_type="dataset")).read_text()
    assert "These splits were cut from train, class by class: test (12.5%)." in card


def test_a_quick_trial_does_not_stand_for_the_whole_audit(hub, faces, tmp_path, capsys):
    push(faces, "--dry-run", "--work", tmp_path / "work")
    options = ("--source", str(faces), "--repo-id", "user/faces", *REQUIRED, "--dry-run")
    capsys.readouterr()
    push_dataset.main([*options, "--work", str(tmp_path / "work")])
    folder = Path(capsys.readouterr().out.split("look at ")[1].strip())
    found = {name: json.loads((folder / name / "audit.json").read_text()) for name in ("audit-quick", "audit")}
    assert "near_duplicates" in found["audit"]
    assert "near_duplicates" not in found["audit-quick"]


def test_a_pull_request_leaves_main_as_it_is(hub, faces, capsys):
    HfApi().create_repo("user/faces", repo_type="dataset")
    push(faces, "--create-pr")
    assert f"{hub.url}/datasets/user/faces/discussions/1" in capsys.readouterr().out
    assert rows() == {}
    assert sum(map(len, rows(revision="refs/pr/1").values())) == 40


@pytest.mark.parametrize(
    ("pattern", "fault", "message"),
    [
        ("POST /api/validate-yaml", {"drop": True}, "cannot be reached or broke off"),
        ("POST /api/repos/create", {"status": 403}, "does not let this token write there"),
        ("PUT /lfs/", {"status": 400}, r"refuses it \(400\)"),
        ("POST .*/commit/", {"status": 503}, r"an error \(503\)"),
        ("POST .*/commit/", {"drop": True, "after": True}, "cannot be reached or broke off"),
    ],
)
def test_after_a_fault_of_the_hub_the_same_command_finishes(hub, faces, pattern, fault, message):
    hub.fail(pattern, **fault)
    with pytest.raises(PublishError, match=message):
        push(faces, "--shard-mb", "0.01")
    push(faces, "--shard-mb", "0.01")
    assert sum(map(len, rows().values())) == 40
    stored = [request.path for request in hub.asked("^PUT /lfs/") if request.status == 200]
    assert len(stored) == len(set(stored)) > 4
    assert len(HfApi().list_repo_commits("user/faces", repo_type="dataset")) == 2


def test_killed_twice_each_picture_is_there_once(hub, tmp_path):
    faces = class_folders(tmp_path / "faces", {"happy": 100, "sad": 100})
    command = ["--source", str(faces), "--repo-id", "user/faces", *QUICK, "--shard-mb", "0.02"]
    with Nursery(os.environ | hub.environment(tmp_path / "home")) as nursery:
        for pattern, skip in (("^PUT /lfs/", 3), ("POST .*/commit/", 0)):
            hub.fail(pattern, skip=skip, call=nursery.kill)
            assert nursery.run(command) == signal.SIGKILL
        assert nursery.run(command) == 0
    published = [row for split in rows().values() for row in split]
    assert len(published) == 200
    originals = {pixels(file.read_bytes()) for file in faces.rglob("*.png")}
    assert {pixels(row["image"]["bytes"]) for row in published} == originals
    stored = [request.path for request in hub.asked("^PUT /lfs/") if request.status == 200]
    assert len(stored) == len(set(stored)) > 10
