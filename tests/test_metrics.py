"""Metrics against scikit-learn and values worked out by hand."""

import evaluate
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fer_hf import metrics


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Targets (200,) of four classes, the last of which never occurs, and probabilities (200, 5) with ties."""
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 4, 200)
    logits = np.round(rng.normal(size=(200, 5)) + 1.5 * np.eye(5)[targets], 1)
    return targets, metrics.softmax(logits)


def test_confusion_counts_true_rows_and_predicted_columns():
    confusion = metrics.confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("targets", "predictions", "message"),
    [([], [], "at least one"), ([0, 1], [0], "as many"), ([0, 3], [0, 1], "3 classes have 0 to 2")],
)
def test_confusion_refuses_what_it_cannot_count(targets, predictions, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion_matrix(np.array(targets, dtype=int), np.array(predictions, dtype=int), 3)


def test_class_scores_equal_scikit_learn(scored):
    targets, probabilities = scored
    predictions = probabilities.argmax(1)
    scores = metrics.class_scores(metrics.confusion_matrix(targets, predictions, 5))
    for average in ("macro", "weighted"):
        expected = sklearn_metrics.precision_recall_fscore_support(
            targets, predictions, average=average, zero_division=0
        )
        got = [scores.average(name, average) for name in ("precision", "recall", "f1")]
        assert got == pytest.approx(expected[:3], abs=1e-12)
    with pytest.raises(ValueError, match="choose macro or weighted"):
        scores.average("f1", "micro")


def test_a_stack_of_matrices_scores_like_each_alone():
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 9, (6, 3, 3))
    together = metrics.class_scores(stack)
    for index, confusion in enumerate(stack):
        assert together.average("f1", "macro")[index] == metrics.class_scores(confusion).average("f1", "macro")
        assert metrics.accuracy(stack)[index] == np.trace(confusion) / confusion.sum()


def test_auc_equals_scikit_learn_with_ties_and_marks_absent_classes(scored):
    targets, probabilities = scored
    areas = metrics.auc_one_vs_rest(targets, probabilities)
    expected = [sklearn_metrics.roc_auc_score(targets == k, probabilities[:, k]) for k in range(4)]
    assert areas[:4] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(areas[4])


def test_auc_with_weights_equals_repeated_rows(scored):
    targets, probabilities = scored
    weights = np.random.default_rng(1).integers(0, 4, (2, 200))
    weighted = metrics.auc_one_vs_rest(targets, probabilities, weights)
    for row in range(2):
        rows = np.repeat(np.arange(200), weights[row])
        alone = metrics.auc_one_vs_rest(targets[rows], probabilities[rows])
        assert weighted[row] == pytest.approx(alone, abs=1e-12, nan_ok=True)


def test_reliability_by_hand():
    bins = metrics.reliability_bins(np.array([0.2, 0.4, 0.6, 0.8]), np.array([0, 1, 1, 1]), bins=2)
    assert bins.confidence == pytest.approx([0.3, 0.7])
    assert bins.accuracy == pytest.approx([0.5, 1.0])
    assert bins.count.tolist() == [2, 2]
    assert bins.error == pytest.approx((0.2 + 0.3) / 2)


def test_equal_confidences_share_a_bin_in_any_order():
    confidence, correct = np.full(30, 0.8), np.array([1] * 24 + [0] * 6)
    shuffled = np.random.default_rng(0).permutation(30)
    for rows in (np.arange(30), shuffled):
        assert metrics.reliability_bins(confidence[rows], correct[rows]).error == pytest.approx(0, abs=1e-12)


def test_bins_of_distinct_confidences_hold_equal_mass():
    confidence = np.random.default_rng(0).random(150)
    assert set(metrics.reliability_bins(confidence, confidence > 0.5).count) == {10}


def test_losses_of_indices_and_distributions():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert metrics.row_losses(probabilities, np.array([0, 1])) == pytest.approx([np.log(2), np.log(10)])
    soft = metrics.row_losses(probabilities, np.array([[0.5, 0.5], [1, 0]]))
    assert soft == pytest.approx([np.log(2), -np.log(0.9)])


def test_jensen_shannon_is_zero_for_equal_and_one_bit_for_disjoint_rows():
    p = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    q = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    expected = 0.5 * (0.5 * np.log2(0.5 / 0.75) + 0.5 * np.log2(0.5 / 0.25)) + 0.5 * np.log2(1 / 0.75)
    assert metrics.jensen_shannon(p, q) == pytest.approx([0, 1, expected])


def test_evaluate_classes_give_the_same_figures_offline(scored):
    targets, probabilities = scored
    predictions = probabilities.argmax(1)
    confusion = metrics.confusion_matrix(targets, predictions, 5)
    combined = evaluate.combine([metrics.Accuracy(), metrics.F1()])
    for rows in (slice(0, 120), slice(120, None)):
        combined.add_batch(predictions=predictions[rows], references=targets[rows])
    assert combined.compute() == pytest.approx(
        {
            "accuracy": metrics.accuracy(confusion),
            "f1_macro": metrics.class_scores(confusion).average("f1", "macro"),
            "f1_weighted": metrics.class_scores(confusion).average("f1", "weighted"),
        }
    )
    auc = metrics.AUC().compute(predictions=probabilities, references=targets)
    assert auc["auc"] == pytest.approx(np.nanmean(metrics.auc_one_vs_rest(targets, probabilities)), abs=1e-6)
    ece = metrics.ExpectedCalibrationError().compute(predictions=probabilities, references=targets, bins=5)
    assert ece["ece"] == pytest.approx(metrics.top_label_reliability(probabilities, targets, 5).error, abs=1e-6)
