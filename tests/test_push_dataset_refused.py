"""What cannot be published: one sentence that says what is wrong and where, and nothing on the Hub."""

from pathlib import Path

import pytest

from tests.data_folders import class_folders, fer_csv, pixel_text, png, write_files
from tests.test_push_dataset import refused


@pytest.fixture
def faces(tmp_path) -> Path:
    """Forty pictures in two classes."""
    return class_folders(tmp_path / "faces", {"Happiness": 20, "sad": 20})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--license", "  "), "--license is '  '"),
        (("--license", "TODO"), "--license is 'TODO'"),
        (("--license", "my-own"), 'README.md: the Hub refuses its metadata: "license" must be one of'),
        (("--consent", "yes"), "--consent is 'yes'"),
        (("--consent", "More information needed"), "--consent is 'More information needed'"),
        (("--splits", "dev=0.1"), "--splits 'dev=0.1' should be validation=SHARE or test=SHARE"),
        (("--splits", "test=much"), "--splits 'test=much' should be"),
        (("--splits", "validation=0.5", "test=0.6"), "should be there and keep a share of its own"),
        (("--remap", "sad"), "--remap 'sad' should be CLASS=CLASS"),
        (("--remap", "sad=blue"), "unknown expression 'blue'"),
        (("--max-side", "0"), "max_side_px should be at least 1"),
        (("--repo-id", "faces"), "'faces' has no owner"),
    ],
)
def test_each_wrong_field_is_named(hub, faces, options, message):
    assert message in refused(faces, *options)


def source_of(kind: str, folder: Path) -> Path:
    """A source that cannot be published, by what is wrong with it."""
    rows = [(i % 2, pixel_text(i), "Training") for i in range(20)]
    broken = {
        "short row": (0, " ".join(["1"] * 2303), "Training"),
        "256": (0, " ".join(["256"] * 2304), "Training"),
        "text": (0, " ".join(["x"] * 2304), "Training"),
        "label": (9, pixel_text(50), "Training"),
    }
    if kind in broken:
        return fer_csv(folder / "fer2013.csv", [*rows[:3], broken[kind]])
    if kind == "columns":
        return fer_csv(folder / "fer2013.csv", rows, header="a,b,c")
    if kind == "class":
        return class_folders(folder / "faces", {"happy": 5, "bored": 5})
    if kind == "small class":
        return class_folders(folder / "faces", {"happy": 9, "sad": 2})
    if kind == "empty":
        (folder / "faces").mkdir()
        return folder / "faces"
    if kind == "corrupt":
        files = {f"happy/{i}.png": b"\x89PNG" if i < 5 else png(i) for i in range(10)}
        return write_files(folder / "faces", files)
    if kind == "zip":
        (folder / "faces.zip").write_bytes(b"PK\3\4 no zip")
        return folder / "faces.zip"
    return folder / kind


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("short row", "row 5: 2,303 pixels instead of 2,304"),
        ("256", "row 5: a pixel is '256'"),
        ("text", "row 5: a pixel is 'x'"),
        ("label", "row 5: "),
        ("columns", "has the columns a, b, c"),
        ("class", "unknown expression 'bored'"),
        ("small class", "sad (2)"),
        ("empty", "has no parquet, no fer2013.csv and no pictures"),
        ("corrupt", "happy/0.png: "),
        ("zip", "faces.zip is no intact zip file"),
        ("none", "none"),
        ("none.zip", "there is no file"),
    ],
)
def test_each_malformed_source_is_one_sentence_that_says_where(hub, tmp_path, kind, message):
    assert message in refused(source_of(kind, tmp_path))
