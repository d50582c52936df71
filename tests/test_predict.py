"""Labelling at scale: each row exactly once whatever is killed, the right answers, nothing mixed up when resumed."""

import io
import json
import multiprocessing
import os
import signal
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fer_hf.recognition import ExpressionRecognizer
from training import predict
from training.pictures import open_pictures

ROWS = 23


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (48, 48), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """23 pictures in two folders, of which number 7 is cut short."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(ROWS):
        file = root / ("a" if number < 9 else "b") / f"{number:02d}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture(number)[: 60 if number == 7 else None])
    return root


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """The same pictures in two parquet files with row groups of four, without labels."""
    root = tmp_path_factory.mktemp("tables")
    column = pa.array(
        [{"bytes": picture(number)[: 60 if number == 7 else None], "path": f"{number}.png"} for number in range(ROWS)]
    )
    for index, part in enumerate((column[:9], column[9:])):
        pq.write_table(
            pa.table({"image": part, "note": ["x"] * len(part)}), root / f"{index}.parquet", row_group_size=4
        )
    return root


def command(data: Path | str, model: Path, output: Path, *more: str) -> list[str]:
    fixed = ["--data", str(data), "--model", str(model), "--output", str(output), "--rows-per-shard", "3"]
    return [*fixed, "--batch-size", "2", *(more or ("--faces", "crop"))]


def read(output: Path) -> list[dict]:
    cache = str(output.parent / "cache")
    rows = datasets.load_dataset("parquet", data_dir=str(output / "data"), split="train", cache_dir=cache)
    return sorted(rows, key=lambda row: row["row"])


@pytest.fixture(scope="module")
def labelled(folder, tiny_model_path, tmp_path_factory) -> list[dict]:
    output = tmp_path_factory.mktemp("labels") / "out"
    assert predict.main(command(folder, tiny_model_path, output)) == ROWS
    return read(output)


def test_each_picture_has_one_row_with_what_the_model_says(labelled, folder, tiny_model_path):
    assert [row["row"] for row in labelled] == list(range(ROWS))
    assert [row["row_id"] for row in labelled[8:10]] == ["a/08.png", "b/09.png"]
    classifier = ExpressionRecognizer.from_pretrained(tiny_model_path).classifier
    for number in (0, 22):
        (expected,) = classifier.probabilities([Image.open(folder / labelled[number]["row_id"]).convert("RGB")])
        (face,) = labelled[number]["faces"]
        assert list(face["scores"]) == list(classifier.labels)
        assert list(face["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
        assert labelled[number]["label"] == face["label"] == classifier.labels[expected.argmax()]
        assert labelled[number]["score"] == face["score"] == pytest.approx(expected.max())
        assert (face["box"], face["detection_score"], labelled[number]["error"]) == (None, None, None)
    assert len({row["score"] for row in labelled}) > ROWS // 2


def test_the_manifest_names_folders_and_no_places(folder, tiny_model_path, tmp_path):
    predict.main(command(folder, tiny_model_path, tmp_path / "out"))
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert (json.loads(text)["data"], json.loads(text)["model"]) == (folder.name, tiny_model_path.name)
    assert str(folder.parent) not in text


def test_a_picture_that_cannot_be_read_is_a_row_with_its_error(labelled):
    assert [row["row"] for row in labelled if row["error"]] == [7]
    assert "damaged or incomplete" in labelled[7]["error"]
    assert (labelled[7]["label"], labelled[7]["score"], labelled[7]["faces"]) == (None, None, [])


def test_a_link_that_leads_nowhere_is_such_a_row_too(tiny_model_path, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(picture(0))
    (tmp_path / "data" / "b.png").symlink_to(tmp_path / "gone.png")
    predict.main(command(tmp_path / "data", tiny_model_path, tmp_path / "out"))
    good, gone = read(tmp_path / "out")
    assert good["error"] is None
    assert gone["error"]


def test_files_that_a_table_names_are_not_opened(tiny_model_path, tmp_path):
    (tmp_path / "mine.png").write_bytes(picture(0))
    (tmp_path / "data").mkdir()
    column = [{"bytes": None, "path": str(tmp_path / "mine.png")}, {"bytes": picture(1), "path": "s3://b/x.png"}]
    pq.write_table(pa.table({"image": pa.array(column)}), tmp_path / "data" / "a.parquet")
    predict.main(command(tmp_path / "data", tiny_model_path, tmp_path / "out"))
    refused, good = read(tmp_path / "out")
    assert "its picture is not in the file" in refused["error"]
    assert good["error"] is None


def test_tables_give_the_same_labels(labelled, tables, tiny_model_path, tmp_path):
    predict.main(command(tables, tiny_model_path, tmp_path / "out"))
    rows = read(tmp_path / "out")
    assert [row["row_id"] for row in rows[8:10]] == ["0.parquet#8", "1.parquet#0"]
    for key in ("row", "label", "score", "faces"):
        assert [row[key] for row in rows] == [row[key] for row in labelled]
    assert [bool(row["error"]) for row in rows] == [bool(row["error"]) for row in labelled]


def test_a_run_of_rows_reads_these_alone(tables, monkeypatch):
    source = open_pictures(str(tables))
    everything = list(source.rows(0, ROWS))
    assert [data for _, data in everything] == [picture(n)[: 60 if n == 7 else None] for n in range(ROWS)]
    read_groups = []
    iter_batches = pq.ParquetFile.iter_batches

    def watched(self, *arguments, row_groups, **options):
        read_groups.append(row_groups)
        return iter_batches(self, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    for start, stop, groups in ((0, 1, [[0]]), (7, 10, [[1, 2], [0]]), (12, 13, [[0]]), (13, 23, [[1, 2, 3]])):
        read_groups.clear()
        assert list(source.rows(start, stop)) == everything[start:stop]
        assert read_groups == groups


def test_a_data_set_on_the_hub_is_read_where_it_lies(hub, tables, labelled, tiny_model_path, tmp_path):
    from huggingface_hub import HfApi

    HfApi().create_repo("user/faces", repo_type="dataset")
    HfApi().upload_folder(repo_id="user/faces", repo_type="dataset", folder_path=tables, path_in_repo="data")
    predict.main(command("user/faces", tiny_model_path, tmp_path / "out", "--files", "data/1*", "--faces", "crop"))
    rows = read(tmp_path / "out")
    assert [row["row_id"] for row in rows] == [f"data/1.parquet#{number}" for number in range(ROWS - 9)]
    assert [row["faces"] for row in rows] == [row["faces"] for row in labelled[9:]]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["revision"] == HfApi().dataset_info("user/faces").sha
    with pytest.raises(ValueError, match="user/nothing is neither a file or folder nor a data set that the Hub gives"):
        open_pictures("user/nothing")


def test_faces_are_found_largest_first(astronaut, tiny_model_path, tmp_path):
    (tmp_path / "in").mkdir()
    both = Image.new("RGB", (768, 512))
    both.paste(astronaut.resize((256, 256)))
    both.paste(astronaut, (256, 0))
    both.save(tmp_path / "in" / "a.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "b.jpg")
    predict.main(command(tmp_path / "in", tiny_model_path, tmp_path / "out", "--faces", "detect"))
    two, none = read(tmp_path / "out")
    assert [face["box"]["xmin"] > 256 for face in two["faces"]] == [True, False]
    assert two["label"] == two["faces"][0]["label"]
    assert two["faces"][0]["detection_score"] > 0.8
    assert (none["faces"], none["label"], none["error"]) == ([], None, None)


def _work(rank: int, arguments: list[str], killed_after: tuple[str, int] | None) -> None:
    """One of two processes, which kills itself when it has called a function of ``os`` so many times."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    if killed_after:
        name, calls_left = killed_after
        module, name = (Path, name) if name == "rename" else (os, name)
        call = getattr(module, name)

        def deadly(*values):
            nonlocal calls_left
            calls_left -= 1
            done = call(*values)
            if not calls_left:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(module, name, deadly)
    predict.main(arguments)


def two_processes(arguments: list[str], *killed_after: tuple[str, int] | None) -> list[int]:
    """Exit codes of two processes at work together."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_predict", "fer_hf.models.modeling_resnet_swish"])
    children = [context.Process(target=_work, args=(rank, arguments, kill)) for rank, kill in enumerate(killed_after)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    return [child.exitcode for child in children]


def test_killed_at_any_moment_each_row_is_there_once(labelled, folder, tiny_model_path, tmp_path):
    output, kill = tmp_path / "out", -signal.SIGKILL
    arguments = command(folder, tiny_model_path, output)
    # The first fsync is the manifest's; a shard is complete on the disk after its own, and there after its rename.
    assert two_processes(arguments, ("fsync", 1), ("link", 1)) == [kill, kill]
    assert two_processes(arguments, ("fsync", 3), ("rename", 1)) == [kill, kill]
    there = sorted(path.name for path in (output / "data").glob("labels-*"))
    assert there == ["labels-00000-of-00008.parquet", "labels-00001-of-00008.parquet"]
    assert list((output / "data").glob(".labels-00002*"))  # half-done work of the first process
    stamps = {name: (output / "data" / name).stat().st_mtime_ns for name in there}
    assert two_processes(arguments, ("fsync", 2), None) == [kill, 0]
    assert two_processes(arguments, None, None) == [0, 0]
    assert read(output) == labelled
    assert {
        name: (output / "data" / name).stat().st_mtime_ns for name in there
    } == stamps  # finished shards are not done again
    assert sorted(path.name for path in (output / "data").iterdir()) == [
        f"labels-{shard:05d}-of-00008.parquet" for shard in range(8)
    ]
    assert predict.main(arguments) == 0


def test_one_process_finishes_what_two_began(labelled, folder, tiny_model_path, tmp_path, monkeypatch):
    arguments = command(folder, tiny_model_path, tmp_path / "out")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert predict.main(arguments) == 4 * 3 - 1  # shards 1, 3, 5 and 7, the last a row short
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ValueError, match="RANK is 1 and WORLD_SIZE 1"):
        predict.main(arguments)
    monkeypatch.setenv("RANK", "0")
    assert predict.main(arguments) == ROWS - 11
    assert read(tmp_path / "out") == labelled


def test_another_model_or_other_data_cannot_be_mixed_in(folder, tables, tiny_model_path, tmp_path):
    import shutil

    output = tmp_path / "out"
    predict.main(command(folder, tiny_model_path, output))
    other = Path(shutil.copytree(tiny_model_path, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text()) | {"temperature": 2.0}
    (other / "config.json").write_text(json.dumps(config))
    for arguments, key in (
        (command(folder, other, output), "model_sha256"),
        (command(tables, tiny_model_path, output), "data_sha256"),
        (command(folder, tiny_model_path, output, "--faces", "detect"), "faces 'crop', and this run has 'detect'"),
    ):
        with pytest.raises(ValueError, match=f"holds labels with {key}.*give what it was begun with"):
            predict.main(arguments)
    moved = Path(shutil.copytree(tiny_model_path, tmp_path / "moved"))
    assert predict.main(command(folder, moved, output)) == 0  # the same model from elsewhere


@pytest.mark.parametrize(
    ("data", "more", "sentence"),
    [
        ("{empty}", (), "has neither parquet files nor pictures in it"),
        ("{folder}", ("--files", "c/*"), r"no file that matches --files 'c/\*'; it has a/00.png"),
        ("{folder}/a/00.png", (), "is a .png file; give a folder, a parquet file or a Hub id"),
        ("{broken}", (), "is no readable parquet file"),
        ("{labels}", (), "has the columns label; one of image, .* should be there"),
    ],
)
def test_what_cannot_be_labelled_is_said(data, more, sentence, folder, tiny_model_path, tmp_path):
    for name in ("empty", "broken", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "a.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "labels" / "a.parquet")
    places = {name: tmp_path / name for name in ("empty", "broken", "labels")} | {"folder": folder}
    with pytest.raises(ValueError, match=sentence):
        predict.main(command(data.format(**places), tiny_model_path, tmp_path / "out", *more))


def test_the_output_may_not_lie_in_the_data(folder, tiny_model_path):
    with pytest.raises(ValueError, match="lies in --data"):
        predict.main(command(folder, tiny_model_path, folder / "labels"))
    assert not (folder / "labels").exists()
