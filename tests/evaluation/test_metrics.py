import math
import warnings

import numpy as np
import pytest
from evaluation_examples import scored_images
from hypothesis import given
from numpy.typing import NDArray
from sklearn import metrics as reference

from orchestrator.errors import DataError
from orchestrator.evaluation.metrics import SMALLEST_PROBABILITY, confusion_matrix, cross_entropy, score
from orchestrator.records import Scores

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")


def scores_of(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Scores:
    return score(probabilities, truth, bootstrap_samples=100, seed=0)


@given(scored_images())
def test_accuracy_f1_and_confusions_agree_with_scikit_learn(
    images: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> None:
    probabilities, truth = images
    found = scores_of(probabilities, truth)
    predicted = probabilities.argmax(axis=1)
    present = np.unique(truth)
    assert found.num_images == len(truth)
    assert found.accuracy == pytest.approx(reference.accuracy_score(truth, predicted), abs=1e-9)
    expected_f1 = reference.f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(expected_f1, abs=1e-9)
    every_class = np.arange(probabilities.shape[1])
    assert found.confusion_matrix == reference.confusion_matrix(truth, predicted, labels=every_class).tolist()


@given(scored_images())
def test_cross_entropy_agrees_with_scikit_learn(
    images: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> None:
    probabilities, truth = images
    if probabilities.shape[1] == 1:
        return
    every_class = np.arange(probabilities.shape[1])
    expected = reference.log_loss(truth, probabilities, labels=every_class)
    assert scores_of(probabilities, truth).cross_entropy == pytest.approx(expected, abs=1e-9)


@given(scored_images())
def test_auc_agrees_with_scikit_learn_over_the_classes_that_have_both_sides(
    images: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> None:
    probabilities, truth = images
    present = np.unique(truth)
    found = scores_of(probabilities, truth).macro_auc
    if len(present) == 1:
        assert found is None
    else:
        curves = [reference.roc_auc_score(truth == k, probabilities[:, k]) for k in present]
        assert found == pytest.approx(np.mean(curves), abs=1e-9)


def test_auc_agrees_with_scikit_learns_own_macro_average() -> None:
    rng = np.random.default_rng(4)
    truth = np.repeat(np.arange(4), 25)
    probabilities = rng.dirichlet(np.ones(4), size=100)
    expected = reference.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert scores_of(probabilities, truth).macro_auc == pytest.approx(expected, abs=1e-9)


def test_hand_computed_scores_of_four_images() -> None:
    probabilities = np.array([[0.8, 0.2, 0.0], [0.4, 0.6, 0.0], [0.3, 0.7, 0.0], [0.9, 0.1, 0.0]])
    found = scores_of(probabilities, np.array([0, 0, 1, 1]))
    assert found.accuracy == 0.5
    assert found.macro_f1 == 0.5
    assert found.confusion_matrix == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    # Of class 0, the scores 0.8 and 0.4 meet 0.3 and 0.9: they win two of four pairs.
    assert found.macro_auc == 0.5
    assert found.cross_entropy == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.1]).mean(), abs=1e-12)


def test_a_class_that_never_occurs_in_truth_leaves_the_mean_f1_alone() -> None:
    two = np.array([[0.9, 0.1], [0.2, 0.8]])
    three = np.column_stack([two, np.zeros(2)])
    truth = np.array([0, 1])
    assert scores_of(two, truth).macro_f1 == scores_of(three, truth).macro_f1 == 1.0


def test_one_image_has_every_score_but_auc() -> None:
    found = scores_of(np.array([[0.25, 0.75]]), np.array([1]))
    assert (found.accuracy, found.accuracy_interval, found.macro_f1) == (1.0, (1.0, 1.0), 1.0)
    assert found.macro_auc is None
    assert found.cross_entropy == pytest.approx(-math.log(0.75))


def test_without_images_every_measure_is_none_and_the_confusions_are_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores_of(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    assert found == Scores(
        num_images=0,
        accuracy=None,
        accuracy_interval=None,
        macro_f1=None,
        macro_auc=None,
        cross_entropy=None,
        confusion_matrix=[[0, 0], [0, 0]],
    )


def test_a_true_class_of_probability_zero_costs_a_finite_loss() -> None:
    loss = cross_entropy(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert loss == pytest.approx(-math.log(SMALLEST_PROBABILITY)) == pytest.approx(87.34, abs=0.01)


def test_the_first_of_equally_probable_classes_is_predicted() -> None:
    found = scores_of(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1]))
    assert found.confusion_matrix == [[1, 0], [1, 0]]


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    assert confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 0]), 2).tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize(
    ("probabilities", "truth", "complaint"),
    [
        (np.full((2, 2), 0.5), [0], "row for each image"),
        (np.full(2, 0.5), [0, 1], "row for each image"),
        (np.full((2, 2), np.nan), [0, 1], "must be finite"),
        (np.full((2, 2), 0.5), [0, 2], r"in \[0, 2\), got 0 to 2"),
        (np.full((2, 2), 0.5), [-1, 0], r"in \[0, 2\), got -1 to 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    probabilities: NDArray[np.float64], truth: list[int], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        scores_of(probabilities, np.array(truth))
