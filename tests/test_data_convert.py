"""CSV to class folders and back gives the same rows; nothing half-written is ever left."""

import json

import datasets
import numpy as np
import pytest

from fer_hf.data.convert import convert_splits, main
from fer_hf.data.sources import SourceOptions, load_source, read_source
from fer_hf.labels import FER7, FERPLUS_COLUMNS
from tests.data_folders import class_folders, fer_csv, picture, pixel_text, png, write_files
from training import draw_photos


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def csv_file(tmp_path):
    usages = ["Training"] * 9 + ["PublicTest"] * 3 + ["PrivateTest"] * 2
    return fer_csv(tmp_path / "fer2013.csv", [((5 * i) % 7, pixel_text(i), usage) for i, usage in enumerate(usages)])


def test_csv_to_class_folders_and_back_is_the_same_file(csv_file, tmp_path, capsys):
    assert main([str(csv_file), str(tmp_path / "folders")]) == 0
    files = sorted(file.relative_to(tmp_path / "folders").as_posix() for file in (tmp_path / "folders").rglob("*.png"))
    assert len(files) == 14
    assert "train/surprise/000001.png" in files
    assert main([str(tmp_path / "folders"), str(tmp_path / "back.csv")]) == 0
    assert (tmp_path / "back.csv").read_bytes() == csv_file.read_bytes()
    assert capsys.readouterr().out.split() == [str(tmp_path / "folders"), str(tmp_path / "back.csv")]


def test_parquet_keeps_votes_and_subjects(tmp_path):
    files = {f"happy/S{i:03d}_001_00000001.png": png(i) for i in range(3)}
    first = load_source(write_files(tmp_path / "data", files))
    again = load_source(convert_splits(first, tmp_path / "out.parquet"))
    assert again["train"].features == first["train"].features
    assert again["train"]["subject"][:] == ["S000", "S001", "S002"]
    assert again["train"]["row_id"][:] == first["train"]["row_id"][:]


def test_merged_sources_with_the_same_numbers_all_get_a_file(tmp_path):
    one, two = class_folders(tmp_path / "one", {"sad": 2}), class_folders(tmp_path / "two", {"sad": 2}, start_seed=5)
    assert main([str(one), str(two), str(tmp_path / "both")]) == 0
    assert load_source(tmp_path / "both")["train"].num_rows == 4


def test_pictures_of_another_size_become_48_grey_pixels_in_a_csv(tmp_path):
    folder = write_files(tmp_path / "data", {"fear/a.png": png(1, side_px=96, colour=True)})
    image = load_source(convert_splits(load_source(folder), tmp_path / "x.csv"))["train"][0]["image"]
    expected = np.asarray(picture(1, side_px=96, colour=True).convert("L").resize((48, 48)), dtype=int)
    assert image.size == (48, 48)
    assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 3


def test_folders_of_numbers_mean_what_their_numbering_says(tmp_path, capsys):
    folders = class_folders(tmp_path / "numbers", {"0": 3, "1": 3})
    assert main([str(folders), str(tmp_path / "read"), "--numbering", "affectnet"]) == 0
    assert {file.parent.name for file in (tmp_path / "read").rglob("*.png")} == {"neutral", "happy"}
    with pytest.raises(SystemExit):
        main([str(folders), str(tmp_path / "other"), "--numbering", "ferplus"])
    assert "choose from auto, fer2013, ckextended" in capsys.readouterr().err.replace("'", "")


@pytest.mark.parametrize("name", ["taken", "taken.csv"])
def test_what_is_there_is_never_replaced(csv_file, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main([str(csv_file), str(tmp_path / name)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_a_failure_leaves_nothing_behind(tmp_path):
    source = load_source(class_folders(tmp_path / "data", {"contempt": 1, "happy": 1}), classes=8)
    with pytest.raises(ValueError, match="has no place for contempt"):
        convert_splits(source, tmp_path / "out" / "x.csv")
    assert list((tmp_path / "out").iterdir()) == []


# the drawn folder of photos


@pytest.fixture
def voted(tmp_path, monkeypatch):
    """A table of FER2013's kind in which every drawn class has rows of 6 and of 8 votes."""
    monkeypatch.setattr(draw_photos, "COUNTS", {"angry": 4, "happy": 8, "sad": 3})
    generator = np.random.default_rng(0)
    columns = {"image": [], "label": [], "ferplus_votes": []}
    for index in range(120):
        name = ("angry", "happy", "sad")[index % 3]
        votes = np.zeros(10, dtype=int)
        votes[FERPLUS_COLUMNS.index(name)] = 6 + 2 * (index % 2)
        votes[FERPLUS_COLUMNS.index("neutral")] = 10 - votes.sum()
        columns["image"].append({"bytes": png(index), "path": None})
        columns["label"].append(int(generator.integers(7)))
        columns["ferplus_votes"].append(votes)
    columns["image"][119] = columns["image"][7]
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=list(FER7)),
        ferplus_votes=datasets.Sequence(datasets.Value("int32"), length=10),
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    return tmp_path / "data"


def test_rows_are_drawn_by_seed_and_agreement_before_any_folder(voted, tmp_path, capsys):
    ids = tmp_path / "draws" / "agreed.json"
    assert draw_photos.main(["--data", str(voted), "--ids", str(ids)]) == 0
    drawn = json.loads(ids.read_text())
    assert {name: len(rows) for name, rows in drawn["row_ids"].items()} == {"angry": 4, "happy": 8, "sad": 3}
    train = load_source(voted)["train"]
    votes = dict(zip(train["row_id"], train["votes"], strict=True))
    for name, rows in drawn["row_ids"].items():
        assert all(votes[row][FERPLUS_COLUMNS.index(name)] == 8 for row in rows)
    assert draw_photos.main(["--data", str(voted), "--ids", str(ids)]) == 2
    assert "drawn already" in capsys.readouterr().err
    again = tmp_path / "again.json"
    assert draw_photos.main(["--data", str(voted), "--ids", str(again)]) == 0
    assert again.read_bytes() == ids.read_bytes()
    assert draw_photos.main(["--data", str(voted), "--ids", str(tmp_path / "x.json"), "--min-votes", "9"]) == 2
    assert "angry has 0 rows of at least 9 votes, 4 are wanted" in capsys.readouterr().err
    every = tmp_path / "every.json"
    assert draw_photos.main(["--data", str(voted), "--ids", str(every), "--min-votes", "0", "--seed", "1"]) == 0
    drawn = json.loads(every.read_text())["row_ids"]
    assert {votes[row][FERPLUS_COLUMNS.index(name)] for name in drawn for row in drawn[name]} == {6, 8}


def test_the_drawn_folder_reads_back_upright_with_the_corrupt_ones_listed(voted, tmp_path, capsys):
    ids, folder = tmp_path / "agreed.json", tmp_path / "photos"
    command = ["--data", str(voted), "--ids", str(ids)]
    assert draw_photos.main(command) == 0
    shares = ["--turned", "1", "--misnamed", "0.4", "--corrupt", "0.2"]
    assert draw_photos.main([*command, "--output", str(folder), *shares]) == 0
    loaded = read_source(folder, SourceOptions(classes=5, max_skipped_share=0.3))
    assert len(loaded.reports[0].skipped) == 3
    assert loaded.splits["train"].num_rows == 12
    assert sum(loaded.reports[0].formats.values()) == 12
    assert set(loaded.reports[0].formats) == {"HEIF", "JPEG", "PNG"}
    train = load_source(voted)["train"]
    pictures = dict(zip(train["row_id"], train["image"], strict=True))
    row_ids = [row for rows in json.loads(ids.read_text())["row_ids"].values() for row in rows]
    for row_id, image in zip(loaded.splits["train"]["row_id"], loaded.splits["train"]["image"], strict=True):
        original = pictures[row_ids[int(row_id[-8:].split("_")[-1].split(".")[0]) - 1]]
        difference = np.asarray(image.convert("L"), dtype=int) - np.asarray(original.convert("L"), dtype=int)
        assert np.abs(difference).mean() < 4
    drawn = json.loads(ids.read_text())
    drawn["row_ids"][min(drawn["row_ids"])].append("train/999999")
    ids.write_text(json.dumps(drawn))
    assert draw_photos.main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "such as train/999999: they were drawn from other data" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_training_can_leave_out_what_was_drawn_and_its_copies(voted, tmp_path):
    ids = tmp_path / "drawn.json"
    ids.write_text(json.dumps({"row_ids": {"happy": ["train/000007"], "sad": ["train/000002"]}}))
    train = load_source(voted, leave_out=str(ids))["train"]
    assert sorted(set(load_source(voted)["train"]["row_id"]) - set(train["row_id"])) == [
        "train/000002",
        "train/000007",
        "train/000119",
    ]
    ids.write_text(json.dumps({"row_ids": {"happy": ["train/999999"]}}))
    with pytest.raises(ValueError, match="names 1 rows, of which train has 0"):
        load_source(voted, leave_out=str(ids))
    other = class_folders(tmp_path / "other", {"test/happy": 1})
    with pytest.raises(ValueError, match="names rows of train, which the source lacks; it has test"):
        load_source(other, leave_out=str(ids))
    ids.write_text("[]")
    with pytest.raises(ValueError, match="is no draw"):
        load_source(voted, leave_out=str(ids))
