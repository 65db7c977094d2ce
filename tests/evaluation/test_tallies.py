"""Tallies of parts add up to that of the whole, and what follows from them is what scikit-learn finds."""

import tracemalloc
from functools import reduce
from operator import add

import numpy as np
import pytest
from evaluation_examples import random_probabilities, scored_images
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from orchestrator.errors import DataError
from orchestrator.evaluation.metrics import class_aucs
from orchestrator.evaluation.tallies import Tally

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")

Images = tuple[NDArray[np.float64], NDArray[np.int64]]
COUNTS = ("confusion", "positives", "negatives", "confidence_counts")


def assert_same(one: Tally, other: Tally) -> None:
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.loss == pytest.approx(other.loss, abs=1e-9)
    np.testing.assert_allclose(one.confidence_sums, other.confidence_sums, atol=1e-9)


@given(scored_images(), st.data())
def test_any_sharding_merged_in_any_order_gives_the_same(images: Images, data: st.DataObject) -> None:
    probabilities, truth = images
    shards = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(truth), max_size=len(truth))))
    order = data.draw(st.permutations(range(5)))
    parts = [Tally.of(probabilities[shards == shard], truth[shards == shard]) for shard in order]
    assert_same(reduce(add, parts), Tally.of(probabilities, truth))


@given(scored_images())
def test_merging_is_associative_and_changes_neither_side(images: Images) -> None:
    probabilities, truth = images
    one, two, three = (Tally.of(probabilities[start::3], truth[start::3]) for start in range(3))
    before = one.confusion.copy()
    assert_same((one + two) + three, one + (two + three))
    np.testing.assert_array_equal(one.confusion, before)


@given(scored_images())
def test_counts_and_loss_agree_with_scikit_learn(images: Images) -> None:
    probabilities, truth = images
    tally, every_class = Tally.of(probabilities, truth), np.arange(probabilities.shape[1])
    expected = reference.confusion_matrix(truth, probabilities.argmax(axis=1), labels=every_class)
    np.testing.assert_array_equal(tally.confusion, expected)
    if len(every_class) > 1:
        loss = reference.log_loss(truth, probabilities, labels=every_class)
        assert tally.loss / tally.num_images == pytest.approx(loss, abs=1e-9)


@given(scored_images())
def test_binned_auc_is_within_its_stated_error_of_scikit_learns(images: Images) -> None:
    probabilities, truth = images
    tally = Tally.of(probabilities, truth)
    for index, (area, error) in enumerate(zip(tally.class_aucs(), tally.auc_errors(), strict=True)):
        own = truth == index
        if own.all() or not own.any():
            assert np.isnan([area, error]).all()
        else:
            assert abs(area - reference.roc_auc_score(own, probabilities[:, index])) <= error + 1e-12


@pytest.mark.parametrize("sureness", [0.3, 3.0, 12.0])
def test_the_stated_error_of_many_images_is_small_however_sure_the_model(sureness: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(5, size=20_000)
    logits = rng.normal(size=(20_000, 5)) + 1.5 * np.eye(5)[truth]
    probabilities = np.exp(sureness * logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    tally = Tally.of(probabilities, truth)
    assert tally.auc_errors().max() < 0.02
    assert np.abs(tally.class_aucs() - class_aucs(probabilities, truth)).max() < 1e-3


def test_confidence_is_binned_as_it_is_defined() -> None:
    probabilities = np.array([[1.0, 0.0], [0.6, 0.4], [0.4, 0.6], [0.55, 0.45]])
    tally = Tally.of(probabilities, np.array([0, 1, 1, 0]))
    # A confidence of 9/15 closes the ninth bin; 0.55 is in it too.
    assert tally.confidence_counts[8].tolist() == [1, 2] and tally.confidence_counts[14].tolist() == [0, 1]
    assert tally.confidence_sums[8].tolist() == pytest.approx([0.6, 1.15])


def test_memory_is_that_of_a_chunk_whatever_the_number_of_images() -> None:
    rng = np.random.default_rng(0)
    peaks = []
    for num_images in (300_000, 1_200_000):
        probabilities, truth = np.full((num_images, 10), 0.1, dtype=np.float32), rng.integers(10, size=num_images)
        tracemalloc.start()
        Tally.of(probabilities, truth)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_chunks_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    probabilities, truth = random_probabilities(rng, 100, 3), rng.integers(3, size=100)
    whole = Tally.of(probabilities, truth)
    monkeypatch.setattr("orchestrator.evaluation.tallies._CHUNK_CELLS", 20)
    assert_same(Tally.of(probabilities, truth), whole)


def test_no_images_are_a_tally_that_adds_nothing() -> None:
    rng = np.random.default_rng(0)
    whole = Tally.of(random_probabilities(rng, 9, 3), rng.integers(3, size=9))
    nothing = Tally.of(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    assert nothing.num_images == 0 and np.isnan(nothing.class_aucs()).all()
    assert_same(whole + nothing, whole)


def test_tallies_of_other_numbers_of_classes_do_not_add_up() -> None:
    two, three = (Tally.of(np.full((1, k), 1 / k), np.array([0])) for k in (2, 3))
    with pytest.raises(DataError, match="tallies of 2 classes"):
        two + three


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
        Tally.of(probabilities, np.array(truth))
