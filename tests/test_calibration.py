"""Temperature, cross-fitting, conformal sets, and the record of the data a model has seen."""

import hashlib
import json

import numpy as np
import pytest
import torch

from fer_hf.data.loaders import ArraySplit
from fer_hf.metrics import softmax
from training import calibration, provenance


def drawn(temperature: float, rows: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (rows, 4) that are ``temperature`` times too sharp for the labels drawn from them."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(rows, 4)) * 2
    cumulative = softmax(honest).cumsum(axis=1)
    return honest * temperature, (rng.random((rows, 1)) > cumulative).sum(axis=1).clip(0, 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_finds_the_temperature_the_labels_were_drawn_with(temperature):
    assert calibration.fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_fit_takes_distributions_and_agrees_with_their_indices():
    logits, targets = drawn(2.0, rows=500)
    assert calibration.fit_temperature(logits, np.eye(4)[targets]) == calibration.fit_temperature(logits, targets)


@pytest.mark.parametrize(
    ("logits", "message"), [(np.zeros((0, 4)), "one for each"), (np.full((3, 4), np.nan), "NaN or infinity")]
)
def test_fit_refuses_what_has_no_temperature(logits, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_temperature(logits, np.zeros(len(logits), dtype=int))


def test_member_weights_are_those_the_labels_were_drawn_with_and_beat_any_other():
    rng = np.random.default_rng(0)
    members = softmax(rng.normal(size=(20000, 3, 4)) * 2)
    drawn_from = (members * np.array([0.6, 0.4, 0.0])[:, None]).sum(axis=1)
    targets = (rng.random((20000, 1)) > drawn_from.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    weights = calibration.fit_member_weights(np.log(members), targets)
    assert weights == pytest.approx([0.6, 0.4, 0.0], abs=0.03)
    assert weights.sum() == pytest.approx(1)

    def loss(of):
        return -calibration.mix(np.log(members), np.array(of))[np.arange(20000), targets].mean()

    others = [weights + step for step in ([0.02, -0.02, 0], [-0.02, 0.02, 0], [-0.02, 0, 0.02], [0, -0.02, 0.02])]
    assert all(loss(other) > loss(weights) for other in others)
    distributions = calibration.fit_member_weights(np.log(members), np.eye(4)[targets])
    assert distributions == pytest.approx(weights)


def test_the_mean_of_equal_members_is_each_of_them_and_a_weight_of_zero_counts_for_nothing():
    logs = np.log(softmax(np.random.default_rng(1).normal(size=(5, 2, 4))))
    assert calibration.mix(logs, np.array([0.0, 1.0])) == pytest.approx(logs[:, 1])
    assert calibration.mix(logs[:, [0, 0]], np.array([0.3, 0.7])) == pytest.approx(logs[:, 0])


def test_cross_fit_never_judges_a_row_by_itself():
    logits, targets = np.arange(23.0)[:, None], np.arange(23)
    seen_by_row = calibration.cross_fit(
        logits,
        targets,
        fit=lambda _, others: frozenset(others.tolist()),
        apply=lambda part, others: np.array([value not in others for value in part[:, 0]]),
    )
    assert seen_by_row.tolist() == [True] * 23


def test_cross_fit_depends_on_its_seed_alone():
    logits, targets = drawn(2.0, rows=300)
    first, again = (calibration.cross_fit(logits, targets) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, calibration.cross_fit(logits, targets, seed=1))
    assert first.sum(axis=1) == pytest.approx(np.ones(300))


def test_conformal_threshold_by_hand():
    of_label = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    probabilities, targets = np.stack([of_label, 1 - of_label], axis=1), np.zeros(9, dtype=int)
    assert calibration.conformal_threshold(probabilities, targets, 0.8) == 0.2  # 8 of 9 reach it
    assert calibration.conformal_threshold(probabilities, targets, 0.9) == 0.1
    assert calibration.conformal_threshold(probabilities, targets, 0.95) == 0.0  # nine rows cannot promise that
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration.conformal_threshold(probabilities, targets, 1.0)


def test_conformal_sets_cover_new_rows_as_promised():
    logits, targets = drawn(1.0, rows=8000)
    probabilities = softmax(logits)
    threshold = calibration.conformal_threshold(probabilities[:4000], targets[:4000], 0.9)
    sets = calibration.conformal_sets(probabilities[4000:], threshold)
    assert sets[np.arange(4000), targets[4000:]].mean() == pytest.approx(0.9, abs=0.015)
    assert sets.sum(axis=1).min() >= 1


def split_of(values: range, target: int = 0) -> ArraySplit:
    images = torch.tensor(list(values), dtype=torch.int32).view(-1, 1, 1, 1).to(torch.uint8)
    targets = torch.eye(2)[torch.full((len(values),), target)]
    hashes = tuple(hashlib.sha256(str(value).encode()).hexdigest() for value in values)
    return ArraySplit(images, targets, tuple(f"test/{value:06d}" for value in values), None, hashes)


def test_overlap_sees_shared_pictures_whatever_their_labels():
    used = provenance.describe(split_of(range(100)))
    assert provenance.overlap(used, split_of(range(100))) == 1
    assert provenance.overlap(used, split_of(range(50, 150), target=1)) == 0.5
    assert provenance.overlap(used, split_of(range(100, 150))) == 0


def test_without_a_sample_only_the_same_pictures_are_recognised():
    used = provenance.describe(split_of(range(10)))
    del used["sample"]
    assert provenance.overlap(used, split_of(range(9, -1, -1), target=1)) == 1
    assert provenance.overlap(used, split_of(range(5, 15))) is None


def test_overlap_of_large_splits_is_estimated_from_a_sample():
    used = provenance.describe(split_of(range(8000)))
    assert 400 < len(used["sample"]["pixel_sha256"]) < 1000
    assert provenance.overlap(used, split_of(range(4000, 12000))) == pytest.approx(0.5, abs=0.06)


def test_records_of_unequal_size_join_to_the_sparser_sample():
    large, small = ({"train": provenance.describe(split_of(rows))} for rows in (range(8000), range(8000, 11000)))
    joined = provenance.seen_by_any([large, small], "train")
    assert joined["sample"]["every"] == large["train"]["sample"]["every"] == 16
    assert set(large["train"]["sample"]["pixel_sha256"]) < set(joined["sample"]["pixel_sha256"])
    assert provenance.overlap(joined, split_of(range(7000, 9000))) == 1
    assert "labels" not in joined  # neither names any


def test_overlap_is_unknown_where_no_picture_could_be_in_the_sample():
    used = provenance.describe(split_of(range(8000)))
    rows = [value for value in range(200) if not provenance._chosen(split_of([value]).pixel_sha256[0], 8)]
    assert provenance.overlap(used, split_of(rows[:20])) is None


def test_roles_are_added_to_the_folder_and_unknown_ones_refused(tmp_path):
    provenance.write_used(tmp_path, "train", split_of(range(10)), labels="fer2013")
    provenance.write_used(tmp_path, "selection", split_of(range(10, 14)), labels="ferplus-majority")
    used = json.loads((tmp_path / "training_data.json").read_text())
    assert {role: (entry["n"], entry["labels"]) for role, entry in used.items()} == {
        "train": (10, "fer2013"),
        "selection": (4, "ferplus-majority"),
    }
    with pytest.raises(ValueError, match="unknown role 'testing'"):
        provenance.write_used(tmp_path, "testing", split_of(range(2)))
