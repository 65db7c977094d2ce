import math

import numpy as np
import pytest
from evaluation_examples import scored_images
from hypothesis import given
from numpy.typing import NDArray
from sklearn import metrics as reference

from orchestrator.evaluation.metrics import SMALLEST_PROBABILITY, ClassCounts, class_aucs, confusion_matrix, losses

pytestmark = pytest.mark.filterwarnings("ignore:.*:sklearn.exceptions.UndefinedMetricWarning")

Images = tuple[NDArray[np.float64], NDArray[np.int64]]


def counts_of(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> ClassCounts:
    return ClassCounts.of(confusion_matrix(truth, probabilities.argmax(axis=1), probabilities.shape[1]))


@given(scored_images())
def test_measures_of_each_class_agree_with_scikit_learn(images: Images) -> None:
    probabilities, truth = images
    predicted = probabilities.argmax(axis=1)
    every_class = np.arange(probabilities.shape[1])
    counts = counts_of(probabilities, truth)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truth, predicted, labels=every_class, zero_division=np.nan
    )
    np.testing.assert_allclose(counts.recall(), recall, atol=1e-9)
    np.testing.assert_allclose(counts.precision(), precision, atol=1e-9)
    np.testing.assert_array_equal(counts.actual, support)
    np.testing.assert_allclose(counts.f1()[support > 0], f1[support > 0], atol=1e-9)
    assert np.isnan(counts.f1()[support == 0]).all()


@given(scored_images())
def test_macro_measures_agree_with_scikit_learn_over_the_classes_that_occur(images: Images) -> None:
    probabilities, truth = images
    predicted, present = probabilities.argmax(axis=1), np.unique(truth)
    counts = counts_of(probabilities, truth)
    assert counts.accuracy() == pytest.approx(reference.accuracy_score(truth, predicted), abs=1e-9)
    for found, expected in [
        (counts.macro_precision(), reference.precision_score),
        (counts.balanced_accuracy(), reference.recall_score),
        (counts.macro_f1(), reference.f1_score),
    ]:
        value = expected(truth, predicted, labels=present, average="macro", zero_division=0)
        assert found == pytest.approx(value, abs=1e-9)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(scored_images())
def test_balanced_accuracy_agrees_with_scikit_learns_own(images: Images) -> None:
    probabilities, truth = images
    expected = reference.balanced_accuracy_score(truth, probabilities.argmax(axis=1))
    assert counts_of(probabilities, truth).balanced_accuracy() == pytest.approx(expected, abs=1e-9)


@given(scored_images())
def test_auc_agrees_with_scikit_learn_for_the_classes_that_have_both_sides(images: Images) -> None:
    probabilities, truth = images
    for index, area in enumerate(class_aucs(probabilities, truth)):
        own = truth == index
        if own.all() or not own.any():
            assert math.isnan(area)
        else:
            assert area == pytest.approx(reference.roc_auc_score(own, probabilities[:, index]), abs=1e-9)


def test_many_confusion_matrices_are_measured_as_each_one_is() -> None:
    matrices = np.random.default_rng(0).integers(0, 4, size=(50, 3, 3))
    stacked = ClassCounts(
        actual=matrices.sum(axis=2), predicted=matrices.sum(axis=1), correct=np.diagonal(matrices, axis1=1, axis2=2)
    )
    single = [ClassCounts.of(matrix) for matrix in matrices]
    for name in ("accuracy", "balanced_accuracy", "macro_precision", "macro_f1", "recall", "precision", "f1"):
        expected = np.array([getattr(counts, name)() for counts in single])
        np.testing.assert_array_equal(getattr(stacked, name)(), expected)


def test_a_class_that_never_occurs_in_truth_leaves_the_mean_f1_alone() -> None:
    two = np.array([[0.9, 0.1], [0.2, 0.8]])
    three = np.column_stack([two, np.zeros(2)])
    truth = np.array([0, 1])
    assert counts_of(two, truth).macro_f1() == counts_of(three, truth).macro_f1() == 1.0


def test_a_true_class_of_probability_zero_costs_a_finite_loss() -> None:
    (loss,) = losses(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert loss == pytest.approx(-math.log(SMALLEST_PROBABILITY)) == pytest.approx(87.34, abs=0.01)


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    assert confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 0]), 2).tolist() == [[0, 2], [1, 0]]
