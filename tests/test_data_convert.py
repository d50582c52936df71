"""CSV to class folders and back gives the same rows; nothing half-written is ever left."""

import datasets
import numpy as np
import pytest

from fer_hf.data.convert import convert, main
from fer_hf.data.sources import load_source
from tests.data_folders import class_folders, fer_csv, picture, pixel_text, png, write_files


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
    again = load_source(convert(first, tmp_path / "out.parquet"))
    assert again["train"].features == first["train"].features
    assert again["train"]["subject"][:] == ["S000", "S001", "S002"]
    assert again["train"]["row_id"][:] == first["train"]["row_id"][:]


def test_merged_sources_with_the_same_numbers_all_get_a_file(tmp_path):
    one, two = class_folders(tmp_path / "one", {"sad": 2}), class_folders(tmp_path / "two", {"sad": 2}, start_seed=5)
    assert main([str(one), str(two), str(tmp_path / "both")]) == 0
    assert load_source(tmp_path / "both")["train"].num_rows == 4


def test_pictures_of_another_size_become_48_grey_pixels_in_a_csv(tmp_path):
    folder = write_files(tmp_path / "data", {"fear/a.png": png(1, side_px=96, colour=True)})
    image = load_source(convert(load_source(folder), tmp_path / "x.csv"))["train"][0]["image"]
    expected = np.asarray(picture(1, side_px=96, colour=True).convert("L").resize((48, 48)), dtype=int)
    assert image.size == (48, 48)
    assert np.abs(np.asarray(image, dtype=int) - expected).mean() < 3


@pytest.mark.parametrize("name", ["taken", "taken.csv"])
def test_what_is_there_is_never_replaced(csv_file, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main([str(csv_file), str(tmp_path / name)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_a_failure_leaves_nothing_behind(tmp_path):
    source = load_source(class_folders(tmp_path / "data", {"contempt": 1, "happy": 1}), classes=8)
    with pytest.raises(ValueError, match="has no place for contempt"):
        convert(source, tmp_path / "out" / "x.csv")
    assert list((tmp_path / "out").iterdir()) == []
