"""Lists of pictures: which file, split, label and subject an entry means, and which entries are left out."""

import datasets
import pytest

from fer_hf.data.sources import SourceOptions, load_source, read_source
from tests.data_folders import (
    class_folders,
    grey,
    names,
    picture,
    png,
    write_files,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is stored stays in the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_raf_db_list_takes_the_aligned_pictures(tmp_path):
    files = {"basic/EmoLabel/list_patition_label.txt": b"train_00001.jpg 5\ntest_0001.jpg 1\ntrain_00002.jpg 4\n"}
    for index, name in enumerate(("train_00001", "test_0001", "train_00002")):
        files[f"basic/Image/original/{name}.jpg"] = png(10 + index)
        files[f"basic/Image/aligned/{name}_aligned.jpg"] = png(index)
    root = write_files(tmp_path / "raf", files)
    for spec in (root, root / "basic"):
        splits = load_source(spec)
        assert names(splits["train"]) == ["sad", "happy"]
        assert names(splits["test"]) == ["surprise"]
        assert (grey(splits["train"][1]["image"]) == grey(picture(2))).all()


def test_lists_as_csv_with_splits_and_subjects_and_a_missing_picture(tmp_path):
    files = {f"pictures/{i}.png": png(i) for i in range(10)}
    lines = [
        f"pictures/{i}.png,{'Joy' if i % 2 else 'anger'},{'val' if i > 7 else 'train'},p{i // 2}" for i in range(10)
    ]
    files["list.csv"] = "\n".join(["path,expression,split,subject", *lines, "gone.png,joy,train,p9"]).encode()
    root = write_files(tmp_path / "data", files)
    loaded = read_source(root / "list.csv")
    assert {name: split.num_rows for name, split in loaded.splits.items()} == {"train": 8, "validation": 2}
    assert names(loaded.splits["validation"]) == ["angry", "happy"]
    assert loaded.splits["train"]["subject"][:3] == ["p0", "p0", "p1"]
    assert loaded.reports[0].skipped[0].row_id == "list.csv, row 12"
    assert "no such picture" in loaded.reports[0].skipped[0].reason


def test_a_missing_picture_is_not_another_folders_of_the_same_name(tmp_path):
    names_of = [f"images/{label}/{number:03}.png" for label in ("happy", "sad") for number in range(3)]
    files = {name: png(number) for number, name in enumerate(names_of) if name != "images/sad/001.png"}
    rows = "".join(f"data/{name},{name.split('/')[1]}\n" for name in names_of)
    root = write_files(tmp_path / "data", files | {"labels.csv": f"path,label\n{rows}".encode()})
    loaded = read_source(root / "labels.csv", SourceOptions(max_skipped_share=0.5))
    assert loaded.splits["train"]["row_id"][:] == [name for name in names_of if name in files]
    assert names(loaded.splits["train"]) == ["happy"] * 3 + ["sad"] * 2
    (skipped,) = loaded.reports[0].skipped
    assert (
        skipped.reason == "'data/images/sad/001.png': no such picture in this folder, and the list names others like it"
    )


def test_a_list_may_name_folders_that_are_not_there(tmp_path):
    files = {f"flat/{number}.png": png(number) for number in range(2)}
    files["labels.csv"] = b"path,label\nelsewhere/0.png,joy\nelsewhere/1.png,sad\n"
    assert names(load_source(write_files(tmp_path / "data", files))["train"]) == ["happy", "sad"]


def test_the_split_of_a_listed_picture_is_the_lists_own_or_its_folders(tmp_path):
    files = {f"{split}/{i}.png": png(10 * (split == "test") + i) for split in ("train", "test") for i in range(2)}
    rows = "".join(f"{name},{'joy' if '0' in name else 'sad'}\n" for name in files)
    both = write_files(tmp_path / "both", files | {"labels.csv": f"path,label\n{rows}".encode()})
    assert {name: split["row_id"][:] for name, split in load_source(both).items()} == {
        "train": ["train/0.png", "train/1.png"],
        "test": ["test/0.png", "test/1.png"],
    }
    lists = {f"{split}.csv": f"image,label\n{row}.png,joy\n".encode() for split, row in (("train", 1), ("val", 2))}
    pictures = {f"train_images/{i}.png": png(i) for i in (1, 2)}
    splits = load_source(write_files(tmp_path / "lists", lists | pictures))
    assert splits["train"]["row_id"][:] == ["train_images/1.png"]
    assert splits["validation"]["row_id"][:] == ["train_images/2.png"]


def test_listed_rows_without_a_label_or_with_a_strange_split_are_skipped(tmp_path):
    files = {f"{i}.png": png(i) for i in range(4)}
    files["list.csv"] = b"path,label,split\n0.png,joy,train\n1.png,joy,holdout\n2.png,,train\n3.png,joy,\n"
    loaded = read_source(write_files(tmp_path / "data", files), SourceOptions(max_skipped_share=0.5))
    assert loaded.splits["train"]["row_id"][:] == ["0.png", "3.png"]
    assert [(row.row_id, row.reason) for row in loaded.reports[0].skipped] == [
        ("list.csv, row 3", "'1.png': the split is 'holdout'; it should be train, validation or test"),
        ("list.csv, row 4", "'2.png': it has no label"),
    ]


def test_subjects_of_listed_pictures_come_from_their_names_without_the_folders(tmp_path):
    files = {f"images/p{i}_a.png": png(i) for i in range(2)}
    files["list.csv"] = b"path,label\nimages/p0_a.png,joy\nimages/p1_a.png,sad\n"
    splits = load_source(write_files(tmp_path / "data", files), subject_pattern=r"^(p\d)_")
    assert splits["train"]["subject"][:] == ["p0", "p1"]


def test_raf_db_csvs_beside_numbered_folders(tmp_path):
    root = class_folders(
        tmp_path / "raf", {f"DATASET/{split}/{i}": 1 for split in ("train", "test") for i in range(1, 8)}
    )
    write_files(root, {"train_labels.csv": b"image,label\n000.png,5\n"})
    splits = load_source(root)
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 7, "test": 7}
    assert names(splits["test"])[:2] == ["surprise", "fear"]


def test_lists_whose_names_end_with_their_split_and_labels_that_became_floats(tmp_path):
    files = {f"pictures/{i}.png": png(i) for i in range(6)}
    files["labels_train.csv"] = b"path,label\npictures/0.png,3.0\npictures/1.png,4\npictures/2.png,\n"
    files["labels_val.csv"] = b"path,label\npictures/3.png,3.0\n"
    files["labels-test.csv"] = b"path,label\npictures/4.png,5.0\n"
    loaded = read_source(write_files(tmp_path / "data", files), SourceOptions(max_skipped_share=0.5))
    found = {split: names(rows) for split, rows in loaded.splits.items()}
    assert found == {"train": ["happy", "sad"], "validation": ["happy"], "test": ["surprise"]}
    assert "it has no label" in loaded.reports[0].skipped[0].reason
