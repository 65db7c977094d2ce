from dataclasses import replace

import numpy as np
import pytest
from parts_examples import InParts
from shift_examples import Classifier, a_classifier

from orchestrator.evaluation import holding, paired_answers
from orchestrator.evaluation.label_shift import ShiftEstimate, Source, Target, estimate_shift, thinned
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import score
from orchestrator.records import ShiftMethod

METHODS: tuple[ShiftMethod, ...] = ("confusion", "em")
SKEWED = np.array([0.7, 0.25, 0.05])


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return a_classifier()


def estimated(
    validation: Predictions, target: Predictions, method: ShiftMethod, *, samples: int = 200, seed: int = 0
) -> ShiftEstimate:
    return estimate_shift(Source.of(validation), Target.of(target), method, bootstrap_samples=samples, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_frequencies_and_corrected_accuracy_lie_in_their_intervals_in_ninety_of_a_hundred_draws(
    classifier: Classifier, method: ShiftMethod
) -> None:
    all_frequencies = accuracy = gains = 0
    rng = np.random.default_rng(8)
    everything = classifier.images(4000, None, 10**6)
    for draw in range(100):
        frequencies = rng.dirichlet(np.ones(3))
        source = Source.of(classifier.images(200, None, 2 * draw))
        images = classifier.images(200, frequencies, 2 * draw + 1)
        found = estimate_shift(source, Target.of(images), method, bootstrap_samples=100, seed=draw)
        low, high = found.intervals.T
        all_frequencies += bool(((low <= frequencies) & (frequencies <= high)).all())

        corrected = source.calibration.apply(images.probabilities, found.frequencies)
        scores = score(corrected, images.truth, bootstrap_samples=100, seed=draw)
        right = source.calibration.apply(everything.probabilities, found.frequencies).argmax(axis=1) == everything.truth
        true_accuracy = frequencies @ [right[everything.truth == label].mean() for label in range(3)]
        assert scores.accuracy is not None and scores.accuracy_interval is not None
        accuracy += bool(scores.accuracy_interval[0] <= true_accuracy <= scores.accuracy_interval[1])
        gains += scores.accuracy >= images.correct.mean()
    assert all_frequencies >= 90
    assert accuracy >= 90
    assert gains >= 80


@pytest.mark.parametrize("method", METHODS)
def test_intervals_are_no_wider_than_they_have_to_be(classifier: Classifier, method: ShiftMethod) -> None:
    sizes = {}
    for num_images in (200, 3200):
        found = estimated(classifier.images(num_images, None, 1), classifier.images(num_images, SKEWED, 2), method)
        np.testing.assert_allclose(found.frequencies, SKEWED, atol=2.5 / np.sqrt(num_images))
        sizes[num_images] = (found.intervals[:, 1] - found.intervals[:, 0]).max()
    # Of as many images whose classes are known, the first share would be known to 0.13.
    assert sizes[200] < 0.4
    assert sizes[3200] == pytest.approx(sizes[200] / 4, rel=0.35)


def test_probabilities_tell_more_than_predicted_classes() -> None:
    classifier = a_classifier(apart=0.8)
    validation, images = classifier.images(2000, None, 1), classifier.images(500, SKEWED, 2)
    sizes = [np.diff(estimated(validation, images, method).intervals, axis=1).mean() for method in METHODS]
    assert sizes[1] < 0.9 * sizes[0]


def test_the_confusion_estimate_solves_the_equations_of_lipton_et_al(classifier: Classifier) -> None:
    validation, images = classifier.images(5000, None, 1), classifier.images(5000, SKEWED, 2)
    joint = np.zeros((3, 3))
    np.add.at(joint, (validation.predicted, validation.truth), 1 / 5000)
    ratios = np.linalg.solve(joint, np.bincount(images.predicted) / 5000)
    expected = ratios * np.bincount(validation.truth) / 5000
    assert (expected > 0).all()
    np.testing.assert_allclose(estimated(validation, images, "confusion").frequencies, expected, atol=0.003)


def test_where_the_equations_have_no_answer_on_the_simplex_a_near_one_is_given(classifier: Classifier) -> None:
    validation = classifier.images(300, None, 1)
    images = classifier.images(300, None, 2)
    alike = images.at(np.flatnonzero(images.predicted == 0))
    found = estimated(validation, alike, "confusion")
    assert found.frequencies[0] > 0.95 and (found.frequencies > 0).all()
    assert found.frequencies.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("method", METHODS)
def test_classes_that_cannot_be_told_apart_stay_as_in_the_source_with_intervals_that_say_so(
    classifier: Classifier, method: ShiftMethod
) -> None:
    def blurred(images: Predictions) -> Predictions:
        probabilities = images.probabilities.copy()
        probabilities[:, :2] = probabilities[:, :2].sum(axis=1, keepdims=True) / 2
        return replace(images, probabilities=probabilities)

    validation, images = blurred(classifier.images(600, None, 1)), blurred(classifier.images(600, SKEWED, 2))
    found = estimated(validation, images, method)
    first, second, third = found.intervals
    assert first[1] - first[0] > 0.5 and second[1] - second[0] > 0.5
    assert third[1] - third[0] < 0.2 and third[0] <= SKEWED[2] <= third[1]
    assert found.frequencies[0] == pytest.approx(found.frequencies[1], abs=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_without_validation_images_and_one_that_was_never_predicted_are_possible(
    classifier: Classifier, method: ShiftMethod
) -> None:
    validation = classifier.images(300, np.array([0.5, 0.5, 0.0]), 1)
    never = validation.at(np.flatnonzero(validation.predicted != 2))
    for known in (validation, never):
        found = estimated(known, classifier.images(300, SKEWED, 2), method)
        assert found.is_converged and np.isfinite(found.intervals).all()
        assert (found.intervals[:, 0] <= found.frequencies).all() and (found.frequencies <= found.intervals[:, 1]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_was_never_seen_may_still_be_as_frequent_as_chance_would_hide(
    classifier: Classifier, method: ShiftMethod
) -> None:
    sure = a_classifier(apart=8.0)
    found = estimated(sure.images(300, None, 1), sure.images(100, np.array([0.5, 0.5, 0.0]), 2), method)
    # Of 100 images none is of a class of 3% in one draw of twenty.
    assert found.intervals[2, 0] == 0.0 and 0.01 < found.intervals[2, 1] < 0.08


@pytest.mark.parametrize("method", METHODS)
def test_few_images_change_little(classifier: Classifier, method: ShiftMethod) -> None:
    validation, few = classifier.images(300, SKEWED, 1), classifier.images(1, None, 2)
    found = estimated(validation, few, method)
    np.testing.assert_allclose(found.frequencies, SKEWED, atol=0.35)
    assert found.intervals[1, 1] - found.intervals[1, 0] > 0.6


@pytest.mark.parametrize("method", METHODS)
def test_kin_is_drawn_together_on_both_sides(classifier: Classifier, method: ShiftMethod) -> None:
    def size(validation: Predictions, images: Predictions) -> float:
        return float(np.diff(estimated(validation, images, method).intervals, axis=1).mean())

    validation, images = (classifier.images(600, None, seed, images_of_one_kin=10) for seed in (1, 2))
    alone = [replace(found, together=[""] * 600) for found in (validation, images)]
    assert size(validation, alone[1]) > 1.2 * size(*alone)
    assert size(alone[0], images) > 1.2 * size(*alone)


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_alone_decides_the_intervals(classifier: Classifier, method: ShiftMethod) -> None:
    validation, images = classifier.images(100, None, 1), classifier.images(100, SKEWED, 2)
    one, again, other = (estimated(validation, images, method, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.intervals, again.intervals)
    np.testing.assert_array_equal(one.frequencies, other.frequencies)
    assert (one.intervals != other.intervals).any()


def test_very_many_images_are_thinned_for_probabilities_alone(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.evaluation.label_shift.MOST_IMAGES", 500)
    images = classifier.images(2000, SKEWED, 2)
    target = Target.of(images)
    assert target.counts.sum() == 2000 and len(target.probabilities) == 500
    source = Source.of(classifier.images(2000, None, 1))
    assert source.num_images == 500
    found = estimate_shift(source, target, "em", bootstrap_samples=100, seed=0)
    assert ((found.intervals[:, 0] <= SKEWED) & (found.intervals[:, 1] >= SKEWED)).all()


@pytest.mark.parametrize("size", [1, 70, 999, 5000])
def test_images_are_thinned_at_even_distances_however_they_are_cut(
    classifier: Classifier, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = classifier.images(1000, SKEWED, 2)
    assert thinned(InParts(images, size).parts(), 1000).ids == images.ids
    monkeypatch.setattr("orchestrator.evaluation.label_shift.MOST_IMAGES", 5)
    assert thinned(InParts(images, size).parts(), 1000).ids == ["0", "249", "499", "749", "999"]


@pytest.mark.parametrize("images_of_one_kin", [1, 5])
@pytest.mark.parametrize("method", METHODS)
def test_parts_of_a_subset_are_estimated_from_as_the_subset_is(
    classifier: Classifier, method: ShiftMethod, images_of_one_kin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.evaluation.label_shift.MOST_IMAGES", 100)
    validation, images = (
        replace(found, subsets=["north", "south", "north", "north"] * 100)
        for found in (classifier.images(400, mix, 3, images_of_one_kin=images_of_one_kin) for mix in (None, SKEWED))
    )
    found, expected = (
        estimate_shift(source, target, method, bootstrap_samples=100, seed=0)
        for source, target in (
            (Source.of(InParts(validation, 33), "north"), Target.of(InParts(images, 33), "north")),
            (Source.of(validation.for_subset("north")), Target.of(images.for_subset("north"))),
        )
    )
    np.testing.assert_array_equal(found.frequencies, expected.frequencies)
    np.testing.assert_array_equal(found.intervals, expected.intervals)


@pytest.mark.parametrize("images_of_one_kin", [1, 5])
def test_more_images_than_are_held_are_counted_as_they_are(
    classifier: Classifier, images_of_one_kin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source.of(classifier.images(3000, None, 1))
    images = classifier.images(2000, SKEWED, 2, images_of_one_kin=images_of_one_kin)
    few = Target.of(images)
    for module in (holding, paired_answers):
        monkeypatch.setattr(module, "MOST_RANKED_IMAGES", 50)
    many, other = Target.of(InParts(images, 64)), Target.of(images)
    assert many.counts_by_unit is None if images_of_one_kin == 1 else few.counts_by_unit is not None
    np.testing.assert_array_equal(many.counts, few.counts)
    np.testing.assert_array_equal(many.probabilities, few.probabilities)
    one, again, exact = (
        estimate_shift(source, target, "confusion", bootstrap_samples=400, seed=0) for target in (many, other, few)
    )
    np.testing.assert_array_equal(one.intervals, again.intervals)
    np.testing.assert_array_equal(one.frequencies, exact.frequencies)
    np.testing.assert_allclose(one.intervals, exact.intervals, atol=0.2 * np.diff(exact.intervals, axis=1).max())
    if images_of_one_kin > 1:
        alone = estimate_shift(source, replace(few, counts_by_unit=None), "confusion", bootstrap_samples=400, seed=0)
        assert np.diff(one.intervals, axis=1).mean() > 1.3 * np.diff(alone.intervals, axis=1).mean()
