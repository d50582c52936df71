"""The audit finds what was planted in made data, counts it exactly, and says it in JSON, in sentences and on a page."""

import io
import json
import re

import datasets
import numpy as np
import pytest
from PIL import Image

from fer_hf.data import audit as audit_module
from fer_hf.data.audit import AuditOptions, audit_splits, main, quick_findings
from fer_hf.data.audit_duplicates import clusters, groups_of_equal, near_pairs
from fer_hf.data.audit_faces import faces_per_picture
from fer_hf.data.audit_labels import label_doubts
from fer_hf.data.audit_scan import scan
from fer_hf.data.loaders import rows_without
from fer_hf.detection import Detection
from fer_hf.faces import Face
from fer_hf.labels import FER7
from tests.data_folders import class_folders, png, write_files

QUICK = AuditOptions(near=False, label_errors=False, face_samples=0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def faces_like(count: int, seed: int = 0) -> np.ndarray:
    """Pictures (N, 48, 48) uint8 that share their coarse structure, as faces do, and differ in the fine one."""
    generator = np.random.default_rng(seed)

    def smooth(size: int, amount: int) -> np.ndarray:
        noise = generator.normal(size=(amount, size, size)).astype(np.float32)
        return np.stack([np.asarray(Image.fromarray(one).resize((48, 48), Image.Resampling.BICUBIC)) for one in noise])

    pictures = 110 + 45 * smooth(5, 1) + 18 * smooth(8, count) + 30 * smooth(20, count) + 8 * smooth(48, count)
    return pictures.clip(0, 255).astype(np.uint8)


def as_jpeg(picture: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def shifted(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    dy, dx = generator.choice([-2, 0, 2], 2)
    return np.pad(picture, 2, mode="edge")[2 + dy : 50 + dy, 2 + dx : 50 + dx]


NEAR_COPIES = {
    "jpeg": lambda picture, _: as_jpeg(picture),
    "mirrored": lambda picture, _: picture[:, ::-1],
    "shifted": shifted,
    "brighter": lambda picture, _: (1.2 * picture).clip(0, 255).astype(np.uint8),
    "darker": lambda picture, _: (0.8 * picture).astype(np.uint8),
    "all": lambda p, g: as_jpeg(shifted((0.8 * p[:, ::-1]).astype(np.uint8), g)),
}


def test_planted_near_copies_are_found_and_nothing_else():
    generator = np.random.default_rng(1)
    originals = faces_like(900)
    kinds = list(NEAR_COPIES)
    rows = generator.choice(len(originals), 204, replace=False)
    copies = np.stack([NEAR_COPIES[kinds[i % len(kinds)]](originals[row], generator) for i, row in enumerate(rows)])
    pairs = near_pairs(np.concatenate([originals, copies]))
    planted = {(int(row), len(originals) + index): kinds[index % len(kinds)] for index, row in enumerate(rows)}
    found = {(pair.first, pair.second): pair for pair in pairs}
    assert len(found.keys() & planted.keys()) >= 0.99 * len(planted)
    assert len(found.keys() - planted.keys()) <= 0.01 * len(found)
    for key in found.keys() & planted.keys():
        assert found[key].mirrored == (planted[key] in ("mirrored", "all"))


def test_near_pairs_leave_out_flat_pictures_and_need_two():
    flat = np.full((3, 48, 48), 90, np.uint8)
    assert near_pairs(flat) == []
    assert near_pairs(faces_like(1)) == []
    assert near_pairs(np.empty((0, 48, 48), np.uint8)) == []
    pairs = near_pairs(np.concatenate([flat, faces_like(1), faces_like(1)]), np.array([0, 1, 3, 4]))
    assert [(pair.first, pair.second, pair.mirrored) for pair in pairs] == [(3, 4, False)]
    assert pairs[0].correlation == pytest.approx(1, abs=1e-3)


def test_groups_and_clusters_are_ordered_by_their_first_row():
    assert [group.tolist() for group in groups_of_equal(np.array(["b", "a", "c", "a", "b", "b"]))] == [
        [0, 4, 5],
        [1, 3],
    ]
    assert groups_of_equal(np.array([], dtype="S4")) == []
    assert [group.tolist() for group in clusters([(5, 1), (1, 3), (0, 4)], 6)] == [[0, 4], [1, 3, 5]]
    assert clusters([], 4) == []


@pytest.fixture
def source(tmp_path) -> datasets.DatasetDict:
    """Nine distinct pictures, with copies within and across splits, two conflicts, a constant and a corrupt file."""
    flat = io.BytesIO()
    Image.new("RGB", (60, 50), (10, 20, 30)).save(flat, "PNG")
    files = {f"train/happy/{i}.png": png(i) for i in range(4)}
    files |= {f"train/sad/{i}.png": png(10 + i) for i in range(3)}
    files |= {"train/happy/copy of 0.png": png(0), "train/sad/conflict with 1.png": png(1)}
    files |= {"val/happy/2.png": png(2), "val/happy/2 again.png": png(2), "val/fear/conflict with 10.png": png(10)}
    files |= {"val/sad/new.png": png(30), "train/sad/flat.png": flat.getvalue(), "train/sad/broken.png": b"broken"}
    return write_files(tmp_path / "data", files)


def test_copies_conflicts_and_constants_are_counted_exactly(source):
    loaded = audit_module.read_source(source)
    found = audit_splits(loaded.splits, QUICK, loaded.reports)
    assert found["rows"] == {"train": 10, "validation": 4}
    exact = found["exact_duplicates"]
    assert exact["groups"] == 4
    assert exact["distinct_pictures"] == 9
    assert exact["surplus_rows_within"] == {"train": 2, "validation": 1}
    assert exact["across"] == [{"splits": ["train", "validation"], "rows": {"train": 2, "validation": 3}}]
    assert [sorted({row["label"] for row in group}) for group in found["conflicts"]] == [
        ["happy", "sad"],
        ["fear", "sad"],
    ]
    assert found["constant"] == ["train/sad/flat.png"]
    assert found["classes"]["train"] == dict.fromkeys(FER7, 0) | {"happy": 5, "sad": 5}
    assert found["sizes"]["most_common"] == {"48×48": 13, "60×50": 1}
    assert found["sizes"]["shorter_side_px"] == {"smallest": 48, "median": 48, "largest": 50}
    assert found["modes"] == {"L": 13, "RGB": 1}
    assert found["subjects"] == {"known": False}
    assert [row["row_id"] for row in found["reading"][0]["skipped"]] == ["train/sad/broken.png"]


def test_findings_say_the_gravest_first(source):
    loaded = audit_module.read_source(source)
    said = audit_splits(loaded.splits, QUICK, loaded.reports)["findings"]
    assert said[0] == {
        "level": "leak",
        "text": "2 rows of train and 3 of validation have exactly the same picture in the other split.",
    }
    levels = [finding["level"] for finding in said]
    assert levels == sorted(levels, key=["leak", "problem", "note"].index)
    texts = " ".join(finding["text"] for finding in said)
    assert "2 groups of equal pictures carry different labels (4 rows)." in texts
    assert "1 picture is of a single colour." in texts
    assert "1 row cannot be read, such as train/sad/broken.png" in texts
    assert "Class angry has no rows in train." in texts
    assert quick_findings(loaded.splits) == [f for f in said if "broken" not in f["text"]]


def test_a_scan_leaves_out_the_rows_that_decoding_again_leaves_out(source):
    splits = audit_module.read_source(source).splits
    apart = scan(splits).rows_apart("train", "validation")
    assert len(apart) == len(splits["train"]) - 2
    assert apart.tolist() == rows_without(splits["train"], splits["validation"]).tolist()


def test_near_copies_of_real_pictures_are_listed_across_splits(tmp_path):
    pictures = faces_like(12)
    files = {}
    for index, picture in enumerate(pictures):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        files[f"{'val' if index > 8 else 'train'}/happy/{index:02d}.png"] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(pictures[3][:, ::-1]).resize((96, 96)).save(buffer, "JPEG", quality=80)
    files["val/sad/mirrored.jpg"] = buffer.getvalue()
    loaded = audit_module.read_source(write_files(tmp_path / "data", files))
    near = audit_splits(loaded.splits, AuditOptions(label_errors=False, face_samples=0))["near_duplicates"]
    assert near["pairs"] == near["pairs_labelled_differently"] == 1
    assert near["across"] == [{"splits": ["train", "validation"], "rows": {"train": 1, "validation": 1}}]
    assert [row["row_id"] for row in near["list"][0]["rows"]] == ["train/happy/03.png", "val/sad/mirrored.jpg"]
    assert near["list"][0]["mirrored"]


def test_subjects_in_two_splits_are_a_leak(tmp_path):
    names = {"train": ["S001", "S002"], "val": ["S002", "S003"]}
    files = {
        f"{split}/happy/{subject}_001_{i:08d}.png": png(hash((split, subject, i)) % 1000)
        for split, subjects in names.items()
        for subject in subjects
        for i in range(2)
    }
    loaded = audit_module.read_source(write_files(tmp_path / "data", files))
    found = audit_splits(loaded.splits, QUICK)
    assert found["subjects"] == {
        "known": True,
        "in_split": {"train": 2, "validation": 2},
        "overlap": {"train and validation": ["S002"]},
    }
    assert {"level": "leak", "text": "1 subject is in train and validation: S002."} in found["findings"]


def test_flipped_labels_come_first_in_the_ranking():
    generator = np.random.default_rng(0)
    truth = generator.choice(7, 3000, p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17])
    logits = generator.normal(0, 1.2, (3000, 7))
    logits[np.arange(3000), truth] += 3
    given = truth.copy()
    flipped = generator.choice(3000, 60, replace=False)
    given[flipped] = (given[flipped] + generator.integers(1, 7, 60)) % 7
    other_order = logits[:, ::-1] - np.log(np.exp(logits).sum(1, keepdims=True))  # the model's classes need not be ours
    doubts = label_doubts(other_order, given, 7)
    ranking = doubts.ranking()
    assert sorted(ranking) == list(range(3000))
    assert np.isin(flipped, ranking[:150]).mean() >= 0.7
    np.testing.assert_allclose(doubts.probabilities.sum(axis=1), 1)


def test_classes_of_fewer_than_five_rows_are_not_judged():
    labels = np.array([0] * 20 + [1] * 20 + [2] * 4)
    doubts = label_doubts(np.eye(3)[labels], labels, 4)
    assert sorted(doubts.ranking()) == list(range(40))
    assert np.isnan(doubts.probabilities[40:]).all()
    assert len(label_doubts(np.ones((6, 2)), np.zeros(6, int), 3).ranking()) == 0


def test_doubtful_labels_are_judged_by_the_model_that_is_named(tmp_path, tiny_model_path):
    loaded = audit_module.read_source(class_folders(tmp_path / "data", {"happy": 30, "sad": 30}))
    options = AuditOptions(near=False, model=str(tiny_model_path), face_samples=0)
    doubtful = audit_splits(loaded.splits, options)["label_errors"]
    assert doubtful["judged_rows"] == 60
    assert len(doubtful["list"]) == 3
    for row in doubtful["list"]:
        assert row["row_id"].startswith(row["label"])
        assert {row["label"], row["likelier"]} <= {"happy", "sad"}
        assert row["own_probability"] <= 0.5
    with pytest.raises(ValueError, match="nowhere"):
        audit_splits(loaded.splits, AuditOptions(near=False, model=str(tmp_path / "nowhere"), face_samples=0))


def test_without_a_default_model_the_audit_says_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_module, "configured_model", lambda: str(tmp_path / "no model"))
    loaded = audit_module.read_source(class_folders(tmp_path / "data", {"happy": 2}))
    found = audit_splits(loaded.splits, AuditOptions(near=False, face_samples=0))
    assert "no default model" in found["label_errors"]["left_out"]
    assert any("Doubtful labels were not looked for" in finding["text"] for finding in found["findings"])


def test_faces_are_counted_in_a_sample_and_small_crops_get_surroundings(tmp_path):
    sizes = []

    class Detector:
        def detect(self, image: Image.Image) -> Detection:
            sizes.append(image.size)
            number = int(np.asarray(image).max() > 0) + (image.width == 300)
            return Detection((Face((0, 0, 9, 9), 0.9, None),) * number)

    black = io.BytesIO()
    Image.new("L", (40, 60)).save(black, "PNG")
    files = {f"happy/{i}.png": png(i) for i in range(5)} | {"happy/photo.png": png(9, side_px=300)}
    files["happy/black.png"] = black.getvalue()
    splits = audit_module.read_source(write_files(tmp_path / "data", files)).splits
    counts, others = faces_per_picture(splits, Detector(), 100)
    assert counts == {0: 1, 1: 5, 2: 1}
    assert [(splits[name][row]["row_id"], number) for name, row, number in others] == [
        ("happy/black.png", 0),
        ("happy/photo.png", 2),
    ]
    assert sorted(set(sizes)) == [(152, 192), (192, 192), (300, 300)]
    assert sum(faces_per_picture(splits, Detector(), 3)[0].values()) == 3


def test_the_command_writes_json_and_a_page_that_needs_no_network(source, tmp_path, tiny_model_path, capsys):
    folder = tmp_path / "audit"
    assert main([str(source), "--output", str(folder), "--model", str(tiny_model_path), "--faces", "2"]) == 0
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert found["rows"] == {"train": 10, "validation": 4}
    assert found["faces"]["sampled"] == 2
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=.(?!data:)", page)
    assert "<script" not in page
    for heading in (
        "Findings",
        "Classes",
        "Samples",
        "Exact copies across splits",
        "Conflicting labels",
        "Odd pictures",
    ):
        assert f"<h2>{heading}</h2>" in page
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)" alt="([^"]+)"', page)
    assert {"train/sad/flat.png", "train/sad/0.png"} <= {row_id for _, row_id in pictures}
    assert "<b>sad</b> train/sad/0.png" in page
    assert "<b>fear</b> val/fear/conflict with 10.png" in page
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
    assert "leak: 2 rows of train and 3 of validation" in capsys.readouterr().out


def test_a_source_named_by_a_point_has_its_folders_name_on_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(class_folders(tmp_path / "my faces", {"happy": 1}))
    assert main([".", "--quick", "--output", str(tmp_path / "audit")]) == 0
    assert "<h1>my faces</h1>" in (tmp_path / "audit" / "audit.html").read_text(encoding="utf-8")


def test_names_from_a_source_cannot_become_markup(tmp_path):
    hostile = '"><img src=x onerror=alert(1)>'
    files = {f"happy/{hostile}.png": png(0), f"sad/{hostile}.png": png(0), f"sad/{hostile}.jpg": b"broken"}
    folder = tmp_path / "audit"
    assert (
        main(
            [
                str(write_files(tmp_path / "data", files)),
                "--quick",
                "--max-skipped-share",
                "0.5",
                "--output",
                str(folder),
            ]
        )
        == 0
    )
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert "onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no such folder here"], "there is no file or folder no such folder here"),
        (["{source}", "--remap", "contempt"], "should be CLASS=CLASS"),
        (["{source}", "--classes", "6"], "no vocabulary of 6 classes"),
        (["{source}", "--max-skipped-share", "0"], "more of its 15 rows cannot be read"),
    ],
)
def test_what_cannot_be_audited_is_said_in_one_line(source, tmp_path, capsys, arguments, message):
    arguments = [argument.format(source=source) for argument in arguments]
    assert main([*arguments, "--quick", "--output", str(tmp_path / "audit")]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "Reading pictures" not in line]
    assert message in error[-1]
    assert not (tmp_path / "audit").exists()
