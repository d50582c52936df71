"""Every layout of a source reads into the one schema; what cannot be used is named, counted and left out."""

import io

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image

from fer_hf.data.sources import SourceOptions, load_source, read_source
from fer_hf.data.sources_merge import _titles
from tests.data_folders import (
    class_folders,
    grey,
    names,
    picture,
    png,
    write_files,
)
from tests.pictures import encode, encode_turned


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is stored stays in the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# class folders


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ({"train/angry": 2, "train/happy": 1, "test/happy": 1}, {"train": 3, "test": 1}),
        (
            {"archive/train/Happiness": 2, "archive/val/Anger": 1, "archive/test/0": 1},
            {"train": 2, "validation": 1, "test": 1},
        ),
        ({"Training/0": 1, "Training/3": 2, "PublicTest/6": 1}, {"train": 3, "validation": 1}),
        ({"surprised": 1, "4_sad": 2}, {"train": 3}),
        ({"fer_train/sad": 2, "fer-val/sad": 1, "my.test/sad": 1}, {"train": 2, "validation": 1, "test": 1}),
        ({"happy/subject 12/clip": 2}, {"train": 2}),
    ],
)
def test_class_folders_at_any_depth_and_under_any_split(tmp_path, folders, splits):
    read = load_source(class_folders(tmp_path / "data", folders))
    assert {name: split.num_rows for name, split in read.items()} == splits
    canonical = {"Happiness": "happy", "Anger": "angry", "0": "angry", "3": "happy", "6": "neutral"}
    canonical |= {"surprised": "surprise", "4_sad": "sad", "clip": "happy"}
    for split in read.values():
        for row_id, name in zip(split["row_id"], names(split), strict=True):
            assert name == canonical.get(row_id.split("/")[-2], row_id.split("/")[-2])


@pytest.mark.parametrize("folder", ["happy/An", "sad/Joy"])
def test_folders_that_name_two_expressions_are_refused(tmp_path, folder):
    class_folders(tmp_path / "data", {folder: 1, "fear": 1})
    names = " and ".join(folder.split("/"))
    with pytest.raises(ValueError, match=rf"{folder} lies in folders of several expressions, {names}: rename those"):
        load_source(tmp_path / "data")
    assert names_of_same(tmp_path) == ["happy"]


def names_of_same(tmp_path) -> list[str]:
    """Two folders on the way that name one expression are no contradiction."""
    return names(load_source(class_folders(tmp_path / "same", {"joy/happy": 1}))["train"])


def test_an_unknown_folder_is_an_error_that_lists_the_known_and_remap_can_drop_it(tmp_path):
    folder = class_folders(tmp_path / "data", {"happy": 1, "sleepy": 2})
    with pytest.raises(
        ValueError, match=r"unknown expression 'sleepy'; known are angry, disgust, .*remap: \{sleepy: null\}"
    ):
        load_source(folder)
    assert load_source(folder, remap={"sleepy": None})["train"].num_rows == 1
    assert names(load_source(folder, remap={"Sleepy": "calm"})["train"]) == ["happy", "neutral", "neutral"]


def test_ten_classes_are_read_and_those_not_used_are_dropped_and_said(tmp_path):
    ten = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
    loaded = read_source(class_folders(tmp_path / "data", dict.fromkeys(ten, 2)))
    assert loaded.splits["train"].num_rows == 14
    assert loaded.reports[0].dropped == {"contempt": 2, "unknown": 2, "not a face": 2}
    assert loaded.reports[0].sentences() == [
        "rows of classes that are not used were left out: not a face (2), contempt (2), unknown (2)"
    ]


@pytest.mark.parametrize(
    ("classes", "remap", "expected"),
    [
        (8, {}, {"contempt": 1, "disgust": 2, "happy": 3}),
        (7, {}, {"disgust": 2, "happy": 3}),
        (7, {"contempt": "disgust"}, {"disgust": 3, "happy": 3}),
        (7, {"contempt": None, "disgust": "angry"}, {"angry": 2, "happy": 3}),
        (5, {"disgust": "anger"}, {"angry": 2, "happy": 3}),
        (5, {}, {"happy": 3}),
    ],
)
def test_classes_are_kept_merged_or_left_out_as_asked(tmp_path, classes, remap, expected):
    split = load_source(
        class_folders(tmp_path / "data", {"contempt": 1, "disgust": 2, "happy": 3}), classes=classes, remap=remap
    )["train"]
    assert split.features["label"].num_classes == classes
    assert {name: names(split).count(name) for name in set(names(split))} == expected


def test_numbered_affectnet_and_raf_folders_are_told_apart_and_numbering_can_be_given(tmp_path):
    affectnet = class_folders(tmp_path / "affectnet", {f"train/{i}": 1 for i in range(8)})
    assert names(load_source(affectnet, classes=8)["train"])[0] == "neutral"
    raf = class_folders(tmp_path / "raf", {f"train/{i}": 1 for i in range(1, 8)})
    assert names(load_source(raf)["train"]) == ["surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"]
    plain = class_folders(tmp_path / "plain", {"0": 1, "1": 1})
    assert names(load_source(plain)["train"]) == ["angry", "disgust"]
    loaded = read_source(plain, SourceOptions(numbering="affectnet"))
    assert names(loaded.splits["train"]) == ["neutral", "happy"]
    assert loaded.reports[0].notes == ["labels are numbers, read as affectnet's: 0 neutral, 1 happy"]


def test_ck48_subjects_come_from_file_names_and_are_never_parted(tmp_path):
    files = {}
    for subject in range(12):
        for index in range(3):
            expression = ("anger", "happy", "contempt")[subject % 3]
            files[f"CK+48/{expression}/S{subject:03d}_001_{index:08d}.png"] = png(subject * 10 + index)
    folder = write_files(tmp_path / "data", files)
    splits = load_source(folder, splits={"validation": 0.3}, remap={"contempt": "disgust"})
    subjects = {name: set(split["subject"]) for name, split in splits.items()}
    assert subjects["train"] | subjects["validation"] == {f"S{i:03d}" for i in range(12)}
    assert not subjects["train"] & subjects["validation"]
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 27, "validation": 9}
    assert set(names(splits["validation"])) == {"angry", "happy", "disgust"}


def test_mixed_formats_wrong_names_and_turned_photos_become_upright_pictures_without_metadata(tmp_path):
    upright = picture(5, side_px=64, colour=True).crop((0, 0, 64, 40))
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "secret camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSDateStamp] = "2024:01:01"
    files = {
        "happy/a.heic": encode(upright, "HEIC", quality=95),
        "happy/heic named.jpg": encode(upright, "HEIC", quality=95),
        "happy/b.PNG": encode(upright, "JPEG", quality=95),
        "happy/turned.jpg": encode_turned(upright, 6, quality=95),
        "happy/gps.jpg": encode(upright, "JPEG", quality=95, exif=exif.tobytes()),
        "happy/alpha.webp": encode(upright.convert("RGBA"), "WEBP", lossless=True),
        "happy/Thumbs.db": b"no picture",
        "happy/.hidden.png": b"no picture",
    }
    loaded = read_source(write_files(tmp_path / "data", files))
    split = loaded.splits["train"]
    assert split["row_id"][:] == sorted(name for name in files if not name.endswith((".db", ".hidden.png")))
    for image in split["image"]:
        assert image.size == (64, 40)
        assert np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(upright, int)).mean() < 6
        assert not image.getexif()
    stored = split.cast_column("image", datasets.Image(decode=False))["image"]
    assert not any(b"secret" in row["bytes"] or b"2024" in row["bytes"] for row in stored)
    assert loaded.reports[0].formats == {"HEIF": 2, "JPEG": 3, "WEBP": 1}
    assert loaded.reports[0].notes == ["files that are no pictures were passed by: .db (1)"]


def test_a_preview_in_the_header_of_a_jpeg_is_not_kept(tmp_path):
    plain = encode(picture(1), "JPEG")
    assert plain[2:6] == b"\xff\xe0\x00\x10"
    preview = b"secret preview "  # 5×1 RGB pixels
    header = b"\xff\xe0" + (16 + len(preview)).to_bytes(2) + plain[6:18] + bytes([5, 1]) + preview
    split = load_source(write_files(tmp_path / "data", {"sad/a.jpg": plain[:2] + header + plain[20:]}))["train"]
    stored = split.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    assert b"secret" not in stored
    assert np.abs(grey(split[0]["image"]) - grey(picture(1))).mean() < 4


def test_linked_folders_are_read_and_a_link_back_ends(tmp_path):
    elsewhere = class_folders(tmp_path / "elsewhere", {"happy": 2})
    folder = class_folders(tmp_path / "data", {"test/sad": 1}, start_seed=9)
    (folder / "train").symlink_to(elsewhere)
    (elsewhere / "happy" / "round").symlink_to(folder)
    splits = load_source(folder)
    assert splits["train"]["row_id"][:] == ["train/happy/000.png", "train/happy/001.png"]
    assert splits["test"]["row_id"][:] == ["test/sad/000.png"]


def test_a_file_beside_class_folders_that_is_no_csv_is_passed_by(tmp_path):
    folder = class_folders(tmp_path / "data", {"happy": 1})
    write_files(folder, {"notes.csv": b'"never closed ' + b"x" * (1 << 21)})
    loaded = read_source(folder)
    assert loaded.splits["train"].num_rows == 1
    assert loaded.reports[0].notes == ["files that are no pictures were passed by: .csv (1)"]


def test_bare_files_are_kept_byte_for_byte(tmp_path):
    grey_jpeg, rgb_webp = encode(picture(1), "JPEG"), encode(picture(2, colour=True), "WEBP", quality=80)
    files = {"sad/a.jpg": grey_jpeg, "sad/b.png": png(3), "sad/c.webp": rgb_webp}
    split = load_source(write_files(tmp_path / "data", files))["train"]
    stored = split.cast_column("image", datasets.Image(decode=False))["image"]
    assert [row["bytes"] for row in stored] == [grey_jpeg, png(3), rgb_webp]


def test_corrupt_pictures_are_counted_listed_and_skipped_up_to_the_share(tmp_path):
    files = {f"happy/{i:02d}.png": png(i) for i in range(18)}
    files |= {"happy/cut.png": png(99)[:200], "happy/text.jpg": b"this is no picture"}
    folder = write_files(tmp_path / "data", files)
    loaded = read_source(folder)
    assert loaded.splits["train"].num_rows == 18
    assert [row.row_id for row in loaded.reports[0].skipped] == ["happy/cut.png", "happy/text.jpg"]
    assert all("picture" in row.reason or "damaged" in row.reason for row in loaded.reports[0].skipped)
    with pytest.raises(
        ValueError, match=r"20 rows cannot be read than max_skipped_share=0.05 allows; 2 rows .*cut.png"
    ):
        load_source(folder, max_skipped_share=0.05)


def test_large_pictures_can_be_stored_smaller(tmp_path):
    folder = write_files(tmp_path / "data", {"fear/a.png": png(1, side_px=200), "fear/b.png": png(2)})
    assert [image.size for image in load_source(folder, max_side_px=100)["train"]["image"]] == [(100, 100), (48, 48)]


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"x"}, {"a.png": png(0)}])
def test_a_folder_without_class_folders_says_so(tmp_path, files):
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"no pictures in it|in no folder named after an expression"):
        load_source(write_files(tmp_path / "data", files))


# storing and merging


def test_a_source_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    folder = class_folders(tmp_path / "data", {"happy": 3})
    load_source(folder)
    import fer_hf.data.sources_store as sources_store

    def never(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(sources_store, "stored_picture", never)
        assert load_source(folder)["train"].num_rows == 3
        with pytest.raises(AssertionError, match="decoded again"):
            load_source(folder, classes=5)
    write_files(folder, {"happy/new.png": png(50)})
    assert load_source(folder)["train"].num_rows == 4


def test_the_same_pictures_read_from_another_folder_are_another_source(tmp_path):
    folder = class_folders(tmp_path / "data", {"test/happy": 1})
    write_files(tmp_path / "listed" / "test", {"a.png": png(1), "list.csv": b"path,label\na.png,joy\n"})
    listed = tmp_path / "listed"
    (listed / "list.csv").symlink_to(listed / "test" / "list.csv")
    for whole, name in ((folder, "happy/000.png"), (listed, "a.png")):
        assert {s: split["row_id"][:] for s, split in load_source(whole).items()} == {"test": [f"test/{name}"]}
        assert {s: split["row_id"][:] for s, split in load_source(whole / "test").items()} == {"train": [name]}


def test_merged_sources_have_names_of_their_own(tmp_path, monkeypatch):
    assert _titles(["a/faces", "b/faces", "c/faces"]) == ["faces", "faces-2", "faces-3"]
    assert _titles(["a/faces-2", "b/faces", "c/faces"]) == ["faces-2", "faces", "faces-3"]
    monkeypatch.chdir(tmp_path)
    assert _titles([".", "user/b", tmp_path]) == [tmp_path.name, "b", f"{tmp_path.name}-2"]


def test_sources_merge_with_their_names_in_row_ids_and_subjects(tmp_path):
    first = class_folders(tmp_path / "one", {"train/happy": 2, "val/happy": 1})
    second = write_files(
        tmp_path / "two", {"joy/S001_001_00000001.png": png(7), "contempt/S002_001_00000001.png": png(8)}
    )
    splits = load_source([first, second], remap={"contempt": "disgust"})
    assert splits["train"]["row_id"][:] == [
        "one/train/happy/000.png",
        "one/train/happy/001.png",
        "two/contempt/S002_001_00000001.png",
        "two/joy/S001_001_00000001.png",
    ]
    assert splits["train"]["subject"][:] == [None, None, "two/S002", "two/S001"]
    assert splits["validation"].num_rows == 1
    assert names(splits["train"]) == ["happy", "happy", "disgust", "happy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 6}, "no vocabulary of 6 classes"),
        ({"numbering": "mine"}, "choose auto, fer2013"),
        ({"remap": {"contempt": "rage"}}, "unknown expression 'rage'"),
        ({"remap": {"contempt": "unknown"}}, "remap leads to unknown"),
        ({"max_skipped_share": 2}, "from 0 to 1"),
        ({"subject_pattern": "S[0-9]+"}, "needs a group"),
        ({"folds": 5, "splits": {"validation": 0.1}}, "exclude each other"),
        ({"streaming": True, "folds": 5}, "a stream cannot be split"),
        ({"streaming": True, "votes": "fer2013new.csv"}, "votes are matched by row order, which a stream loses"),
        ({"streaming": True, "leave_out": "x.json"}, "cannot be left out of a stream"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SourceOptions(**changes)


def test_pictures_of_a_stored_split_decode_from_memory_maps(tmp_path):
    split = load_source(class_folders(tmp_path / "data", {"happy": 1}))["train"]
    assert split.cache_files[0]["filename"].endswith("train.arrow")
    buffer = io.BytesIO(split.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"])
    assert Image.open(buffer).size == (48, 48)
