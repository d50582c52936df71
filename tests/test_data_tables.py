"""Parquet and the Hub: whole or as a stream, every table reads into the one schema."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from fer_hf.data.sources import SourceOptions, load_source, read_source
from fer_hf.data.sources_stream import stream_tables
from tests.data_folders import FEATURES, VOTES_HEADER, class_folders, grey, names, pixel_text, png, write_files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is stored stays in the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def table(tmp_path):
    columns = {
        "image": [{"bytes": png(i), "path": None} for i in range(6)] + [{"bytes": b"no picture", "path": None}],
        "label": [0, 1, 2, 0, 1, 2, 0],
        "ferplus_votes": [[i] + [0] * 8 + [10 - i] for i in range(7)],
        "note": ["x"] * 7,
    }
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["Sadness", "contempt", "joy"]),
        ferplus_votes=datasets.Sequence(datasets.Value("uint8"), length=10),
        note=datasets.Value("string"),
    )
    folder = tmp_path / "table"
    folder.mkdir()
    whole = datasets.Dataset.from_dict(columns, features=features)
    whole.to_parquet(folder / "train.parquet")
    whole.select([1, 2]).to_parquet(folder / "validation-00000-of-00001.parquet")
    return folder


def test_parquet_reads_into_the_schema_whatever_its_class_order(table):
    splits = load_source(table, max_skipped_share=0.2)
    votes = datasets.Features(votes=datasets.Sequence(datasets.Value("int32"), length=10))
    assert splits["train"].features == datasets.Features(FEATURES | votes)
    assert names(splits["train"]) == ["sad", "happy", "sad", "happy"]
    assert splits["train"]["row_id"][:] == [f"train/{i:06d}" for i in (0, 2, 3, 5)]
    assert [row[0] for row in splits["train"]["votes"]] == [0, 2, 3, 5]
    assert names(splits["validation"]) == ["happy"]


def test_tables_that_mean_the_same_split_are_no_stream(table):
    (table / "train.parquet").rename(table / "train_clean.parquet")
    (table / "validation-00000-of-00001.parquet").rename(table / "train_other.parquet")
    assert load_source(table, max_skipped_share=0.2)["train"].num_rows == 5
    files = {name: str(table / f"{name}.parquet") for name in ("train_clean", "train_other")}
    tables = {name: datasets.Dataset.from_parquet(file).to_iterable_dataset() for name, file in files.items()}
    with pytest.raises(ValueError, match="two of train_clean, train_other mean train, which a stream cannot join"):
        stream_tables(tables, SourceOptions(streaming=True))


def test_columns_that_only_sound_like_votes_or_labels(tmp_path):
    image = [{"bytes": png(i), "path": None} for i in range(3)]
    for name, columns in (
        ("counts", {"image": image, "label": ["joy", "sad", "joy"], "votes": [7, 8, 9]}),
        ("nine", {"image": image, "label": ["joy", "sad", "joy"], "votes": [[1] * 10, [1] * 9, [2] * 10]}),
        ("lists", {"image": image, "label": [[1], [2], [3]]}),
    ):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pydict(columns), tmp_path / name / "train.parquet")
    loaded = read_source(tmp_path / "counts")
    assert "votes" not in loaded.splits["train"].column_names
    assert "the column votes holds no lists of votes and is passed by" in loaded.reports[0].notes
    loaded = read_source(tmp_path / "nine", SourceOptions(max_skipped_share=0.5))
    assert [row[0] for row in loaded.splits["train"]["votes"]] == [1, 2]
    assert loaded.reports[0].skipped[0].reason == "it has 9 votes; FER+ has 10 counts a row"
    with pytest.raises(ValueError, match="the column label holds lists; a label is one name or number"):
        read_source(tmp_path / "lists")


def test_a_stream_gives_the_same_rows_as_the_whole(table):
    whole = load_source(table, max_skipped_share=0.2)
    stream = load_source(table, streaming=True)
    assert isinstance(stream, datasets.IterableDatasetDict)
    for name, split in whole.items():
        rows = list(stream[name])
        assert stream[name].features == split.features
        assert [row["row_id"] for row in rows] == split["row_id"][:]
        assert [row["label"] for row in rows] == split["label"][:]
        assert [row["votes"] for row in rows] == split["votes"][:]
        assert all((grey(row["image"]) == grey(kept)).all() for row, kept in zip(rows, split["image"], strict=True))


def test_labels_as_text_stream_too_and_rows_without_one_are_passed_by(tmp_path):
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(4)], "emotion": ["Happy", None, "anger", "joy"]}
    features = datasets.Features(image=datasets.Image(), emotion=datasets.Value("string"))
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    whole = read_source(tmp_path / "data", SourceOptions(max_skipped_share=0.3))
    assert names(whole.splits["train"]) == ["happy", "angry", "happy"]
    assert [(row.row_id, row.reason) for row in whole.reports[0].skipped] == [("train/000001", "it has no label")]
    rows = list(load_source(tmp_path / "data", streaming=True)["train"])
    assert [row["label"] for row in rows] == whole.splits["train"]["label"][:]


def test_a_stream_does_not_guess_what_numbers_mean_or_part_rows_into_splits(tmp_path):
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(7)], "label": list(range(1, 8))}
    datasets.Dataset.from_dict(
        columns, features=datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    ).to_parquet(tmp_path / "numbers" / "train.parquet")
    with pytest.raises(ValueError, match=r"column label are numbers.*give numbering as .*raf-db"):
        load_source(tmp_path / "numbers", streaming=True)
    whole = load_source(tmp_path / "numbers")["train"]
    rows = list(load_source(tmp_path / "numbers", streaming=True, numbering="raf-db")["train"])
    assert [row["label"] for row in rows] == whole["label"][:]
    columns = {"image": columns["image"], "label": ["happy"] * 7, "Usage": ["Training"] * 4 + ["PrivateTest"] * 3}
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"), Usage=datasets.Value("string"))
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "usage" / "train.parquet")
    assert {name: len(split) for name, split in load_source(tmp_path / "usage").items()} == {"train": 4, "test": 3}
    with pytest.raises(ValueError, match="the column Usage says of each row which split it belongs to"):
        load_source(tmp_path / "usage", streaming=True)


def of_pixels(columns: dict, path) -> None:
    """A table of FER2013's pixels with these further columns."""
    count = len(next(iter(columns.values())))
    datasets.Dataset.from_dict({"pixels": [pixel_text(i) for i in range(count)]} | columns).to_parquet(path)


def test_rows_of_a_table_with_splits_are_numbered_and_voted_on_split_by_split(tmp_path):
    usages = ["Training", "PublicTest", "Training", "PublicTest", "Training"]
    of_pixels({"emotion": [3] * 5, "Usage": usages}, tmp_path / "data" / "all.parquet")
    votes = tmp_path / "fer2013new.csv"
    votes.write_text(VOTES_HEADER + "".join(f"{usage},x,{i},9,0,0,0,0,0,0,0,0\n" for i, usage in enumerate(usages)))
    splits = load_source(tmp_path / "data", votes=str(votes))
    found = {name: (split["row_id"][:], [v[0] for v in split["votes"]]) for name, split in splits.items()}
    assert found == {
        "train": (["train/000000", "train/000001", "train/000002"], [0, 2, 4]),
        "validation": (["validation/000000", "validation/000001"], [1, 3]),
    }


def test_a_row_of_no_known_split_is_skipped_and_not_trained_on(tmp_path):
    of_pixels({"emotion": [3] * 4, "split": ["train", "holdout", None, "test"]}, tmp_path / "data" / "all.parquet")
    loaded = read_source(tmp_path / "data", SourceOptions(max_skipped_share=0.3))
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 2, "test": 1}
    assert [(row.row_id, row.reason) for row in loaded.reports[0].skipped] == [
        ("row 1 of train", "split is 'holdout'; it should be train, validation or test")
    ]


def test_labels_of_a_column_with_gaps_are_whole_numbers_and_those_of_no_class_are_skipped(tmp_path):
    of_pixels({"emotion": [3.0, None, 6.0]}, tmp_path / "gaps" / "train.parquet")
    assert names(load_source(tmp_path / "gaps", max_skipped_share=0.5)["train"]) == ["happy", "neutral"]
    stream = load_source(tmp_path / "gaps", streaming=True, numbering="fer2013")["train"]
    assert [row["label"] for row in stream] == [3, 6]
    of_pixels({"emotion": ["3.0", "", "sad"]}, tmp_path / "text" / "train.parquet")
    assert names(load_source(tmp_path / "text", max_skipped_share=0.5)["train"]) == ["happy", "sad"]
    table = pa.table({"pixels": [pixel_text(i) for i in range(4)], "label": pa.array([0, 2, -2, 1], pa.int64())})
    features = datasets.Features(pixels=datasets.Value("string"), label=datasets.ClassLabel(names=["happy", "sad"]))
    (tmp_path / "strange").mkdir()
    metadata = features.arrow_schema.metadata
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "strange" / "train.parquet")
    loaded = read_source(tmp_path / "strange", SourceOptions(max_skipped_share=0.5))
    assert names(loaded.splits["train"]) == ["happy", "sad"]
    assert [(row.row_id, row.reason) for row in loaded.reports[0].skipped] == [
        (f"train/00000{row}", f"its label is {value}; the 2 classes are numbered from 0")
        for row, value in ((1, 2), (2, -2))
    ]


def test_folders_give_the_splits_of_parquet_and_what_is_hidden_is_passed_by(tmp_path):
    folder = tmp_path / "FER (2013) [v2]"
    for index, name in enumerate(("train.parquet", "test/part1/a.parquet")):
        of_pixels({"emotion": [index]}, folder / name)
    write_files(folder, {"._train.parquet": b"of macOS", ".cache/train.parquet": b"of a download"})
    assert {name: names(split) for name, split in load_source(folder).items()} == {
        "train": ["angry"],
        "test": ["disgust"],
    }
    for name in ("fer_train", "fer-val", "fer_test-00000-of-00001"):
        of_pixels({"emotion": [3]}, tmp_path / "ends" / f"{name}.parquet")
    assert sorted(load_source(tmp_path / "ends")) == ["test", "train", "validation"]
    assert list(load_source(folder / "test")) == ["test"]
    assert list(load_source(folder / "test" / "part1" / "a.parquet")) == ["train"]


def test_numbers_name_rows_and_subjects_too(tmp_path):
    columns = {
        "image": [{"bytes": png(i), "path": None} for i in range(3)],
        "label": ["happy"] * 3,
        "subject": [7, 0, None],
        "row_id": [10, 0, None],
    }
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.Value("string"),
        subject=datasets.Value("int64"),
        row_id=datasets.Value("int64"),
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    split = load_source(tmp_path / "data")["train"]
    assert split["subject"][:] == ["7", "0", None]
    assert split["row_id"][:] == ["10", "0", "train/000002"]


def test_what_load_source_gives_can_be_saved_and_read_again(table, tmp_path):
    first = load_source(table, max_skipped_share=0.2)
    for name, split in first.items():
        split.to_parquet(tmp_path / "again" / f"{name}.parquet")
    again = load_source(tmp_path / "again")
    assert again["train"].features == first["train"].features
    assert again["train"].remove_columns("image")[:] == first["train"].remove_columns("image")[:]


def test_a_table_without_labels_and_a_file_that_is_no_parquet_are_refused(tmp_path):
    datasets.Dataset.from_dict({"image": [1], "mood": [2]}).to_parquet(tmp_path / "a" / "train.parquet")
    with pytest.raises(ValueError, match="the columns are image, mood; one of label, labels, emotion"):
        load_source(tmp_path / "a")
    write_files(tmp_path / "b", {"train.parquet": b"no parquet"})
    with pytest.raises(ValueError, match=r"one of .*train.parquet is no readable parquet"):
        load_source(tmp_path / "b")


def test_a_name_that_is_nothing_here_is_looked_for_on_the_hub_and_a_path_is_not(tmp_path):
    with pytest.raises(
        ValueError, match=r"someone/no-such-data is neither a file or folder nor a data set that the Hub gives"
    ):
        load_source("someone/no-such-data")
    with pytest.raises(ValueError, match="there is no file or folder"):
        load_source(tmp_path / "nothing here")


def test_the_configurations_of_a_data_set_on_the_hub_are_named_where_one_must_be_chosen(hub, tmp_path):
    class_folders(tmp_path / "data", {"one/happy": 1, "two/sad": 1})
    configs = "".join(f"- config_name: {name}\n  data_dir: {name}\n" for name in ("one", "two"))
    write_files(tmp_path / "data", {"README.md": f"---\nconfigs:\n{configs}---\n".encode()})
    HfApi().create_repo("user/both", repo_type="dataset")
    HfApi().upload_folder(repo_id="user/both", repo_type="dataset", folder_path=tmp_path / "data")
    with pytest.raises(ValueError, match=r"Please pick one among the available configs: \['one', 'two'\]$"):
        load_source("user/both")


def test_a_data_set_of_files_on_the_hub_is_read_whole_and_streamed(hub, tmp_path):
    folder = class_folders(tmp_path / "data", {"train/Happiness": 3, "train/Anger": 2, "test/Anger": 1})
    write_files(folder, {"train/Anger/broken.png": png(90)[:100]})
    HfApi().create_repo("user/photos", repo_type="dataset")
    HfApi().upload_folder(repo_id="user/photos", repo_type="dataset", folder_path=folder)
    whole = load_source("user/photos", max_skipped_share=0.2)
    stream = load_source("user/photos", streaming=True)
    assert {name: split.num_rows for name, split in whole.items()} == {"train": 5, "test": 1}
    for name, split in whole.items():
        rows = list(stream[name])
        assert [row["row_id"] for row in rows] == split["row_id"][:]
        assert [row["label"] for row in rows] == split["label"][:]
        assert all((grey(row["image"]) == grey(kept)).all() for row, kept in zip(rows, split["image"], strict=True))
    assert sorted(names(whole["train"])) == ["angry"] * 2 + ["happy"] * 3
