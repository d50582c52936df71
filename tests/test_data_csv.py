"""Pixels in a CSV: FER2013's and CK+'s files, their numbers, their votes and their faults."""

import datasets
import pytest

from fer_hf.data.loaders import load_arrays
from fer_hf.data.sources import SourceOptions, load_source, read_source
from fer_hf.labels import FER7
from fer_hf.models.image_processing_fer import FerImageProcessor
from tests.data_folders import (
    FEATURES,
    VOTES_HEADER,
    fer_csv,
    grey,
    names,
    picture,
    pixel_text,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is stored stays in the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("header", ["emotion,pixels,Usage", "emotion, pixels, Usage", "\ufeffemotion, Usage, pixels"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_pixels_of_a_csv_become_pictures_in_their_splits(tmp_path, header, end):
    rows = [(0, "Training"), (3, "PublicTest"), (6, "Training"), (4, "PrivateTest")]
    fields = {"emotion": lambda i: str(rows[i][0]), "pixels": pixel_text, "usage": lambda i: rows[i][1]}
    columns = [name.strip("\ufeff ").lower() for name in header.split(",")]
    lines = [header, *(",".join(fields[column](i) for column in columns) for i in range(4))]
    (tmp_path / "icml_face_data.csv").write_bytes(end.join(lines).encode())
    splits = load_source(tmp_path / "icml_face_data.csv")
    assert {name: split["row_id"][:] for name, split in splits.items()} == {
        "train": ["train/000000", "train/000001"],
        "validation": ["validation/000000"],
        "test": ["test/000000"],
    }
    assert all(split.features == FEATURES for split in splits.values())
    assert names(splits["train"]) == ["angry", "neutral"]
    assert (grey(splits["train"][1]["image"]) == grey(picture(2))).all()
    assert (grey(splits["test"][0]["image"]) == grey(picture(3))).all()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((0, pixel_text(1).rsplit(" ", 1)[0], "Training"), "row 3: 2,303 pixels instead of 2,304"),
        ((0, pixel_text(1).rsplit(" ", 1)[0] + " 256", "Training"), "row 3: a pixel is '256'"),
        ((0, pixel_text(1).rsplit(" ", 1)[0] + " -1", "Training"), "row 3: a pixel is '-1'"),
        ((0, pixel_text(1).rsplit(" ", 1)[0] + " dark", "Training"), "row 3: a pixel is 'dark'"),
        ((0, "", "Training"), "row 3: 0 pixels"),
        ((8, pixel_text(1), "Training"), "row 3: emotion is '8'; it should be a number from 0 to 7"),
        (("happy", pixel_text(1), "Training"), "row 3: emotion is 'happy'"),
        ((0, pixel_text(1), "Practice"), "row 3: Usage is 'Practice'"),
    ],
)
def test_a_malformed_row_is_named_with_its_reason(tmp_path, row, reason):
    path = fer_csv(tmp_path / "fer2013.csv", [(0, pixel_text(0), "Training"), row])
    with pytest.raises(ValueError, match=reason):
        load_source(path)
    loaded = read_source(path, SourceOptions(max_skipped_share=0.5))
    assert loaded.splits["train"].num_rows == 1
    assert f"{loaded.reports[0].skipped[0].row_id}: {loaded.reports[0].skipped[0].reason}".startswith(reason)


def test_numbers_that_became_floats_are_numbers(tmp_path):
    path = fer_csv(tmp_path / "fer2013.csv", [("3.0", pixel_text(0), "Training"), ("0.0", pixel_text(1), "Training")])
    assert names(load_source(path)["train"]) == ["happy", "angry"]


def test_seven_is_contempt_in_a_csv_of_pixels_as_in_that_of_ck(tmp_path):
    path = fer_csv(tmp_path / "ckextended.csv", [(n, pixel_text(n), "Training") for n in (0, 7, 6)])
    assert names(load_source(path, classes=8)["train"]) == ["angry", "contempt", "neutral"]
    loaded = read_source(path, SourceOptions())
    assert names(loaded.splits["train"]) == ["angry", "neutral"]
    assert loaded.reports[0].dropped == {"contempt": 1}
    with pytest.raises(ValueError, match="row 3: emotion is '7'; it should be a number from 0 to 6"):
        load_source(path, numbering="fer2013")


def test_a_skipped_row_keeps_its_place_so_that_votes_stay_with_their_pictures(tmp_path):
    rows = [(0, pixel_text(0), "Training"), (1, "12", "Training"), (2, pixel_text(2), "Training")]
    path = fer_csv(tmp_path / "fer2013.csv", rows)
    votes = tmp_path / "fer2013new.csv"
    votes.write_text(VOTES_HEADER + "".join(f"Training,x.png,{i},9,0,0,0,0,0,0,0,0\n" for i in range(3)))
    split = load_source(path, votes=str(votes), max_skipped_share=0.5)["train"]
    assert split["row_id"][:] == ["train/000000", "train/000002"]
    assert [row[0] for row in split["votes"]] == [0, 2]
    votes.write_text(VOTES_HEADER + "Training,x.png,1,9,0,0,0,0,0,0,0,0\n")
    with pytest.raises(ValueError, match=r"1 rows of votes for train and the source has 3 rows"):
        load_source(path, votes=str(votes), max_skipped_share=0.5)


def test_a_csv_of_other_columns_says_what_it_should_have(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns a, b; it should have emotion, pixels and Usage"):
        load_source(tmp_path / "x.csv")


def test_a_split_that_the_votes_lack_altogether_has_none_and_it_is_logged(tmp_path, caplog):
    path = fer_csv(tmp_path / "fer2013.csv", [(0, pixel_text(0), "Training"), (1, pixel_text(1), "PrivateTest")])
    votes = tmp_path / "fer2013new.csv"
    votes.write_text(VOTES_HEADER + "Training,x.png,1,9,0,0,0,0,0,0,0,0\n")
    splits = load_source(path, votes=str(votes))
    assert splits["train"]["votes"][:] == [[1, 9, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert splits["test"]["votes"][:] == [None]
    assert "has no votes for test" in caplog.text
    processor = FerImageProcessor()
    assert load_arrays(splits["test"], processor, labels="fer2013", names=FER7).votes is None
    with pytest.raises(ValueError, match="needs FER\\+ votes, and this data has none"):
        load_arrays(splits["test"], processor, labels="ferplus-majority", names=FER7)
    mixed = datasets.concatenate_datasets([splits["train"], splits["test"]])
    arrays = load_arrays(mixed, processor, labels="fer2013", names=FER7)
    assert arrays.votes.tolist() == [[1, 9, *[0] * 8], [0] * 10]
    assert load_arrays(mixed, processor, labels="ferplus-majority", names=FER7).labels.tolist() == [FER7.index("happy")]


def test_a_csv_without_usage_is_one_split(tmp_path):
    (tmp_path / "train.csv").write_text(f"emotion,pixels\n3,{pixel_text(0)}\n4,{pixel_text(1)}\n")
    assert names(load_source(tmp_path / "train.csv")["train"]) == ["happy", "sad"]


def test_of_several_csvs_of_pixels_those_not_read_are_named(tmp_path):
    for index, name in enumerate(("fer2013", "icml_face_data")):
        fer_csv(tmp_path / f"{name}.csv", [(3, pixel_text(index), "Training")])
    loaded = read_source(tmp_path)
    assert (grey(loaded.splits["train"][0]["image"]) == grey(picture(0))).all()
    assert loaded.reports[0].notes == ["fer2013.csv was read, and these like it were passed by: icml_face_data.csv"]
