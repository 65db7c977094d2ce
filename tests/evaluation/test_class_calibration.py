import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from shift_examples import a_classifier

from orchestrator.evaluation.class_calibration import fit_class_calibration

Values = NDArray[np.float64]


def a_model(sharpness: float, biases: list[float], num_images: int, seed: int = 0) -> tuple[Values, NDArray[np.int64]]:
    """Draw truth from softmax(logits), and give probabilities that become right by this sharpness and these biases."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.normal(size=(num_images, len(biases)))
    truth = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return softmax((logits - np.array(biases)) / sharpness, axis=1), truth


def test_a_known_sharpness_and_known_biases_are_found() -> None:
    found = fit_class_calibration(*a_model(0.5, [1.0, -0.4, -0.6], 20_000)).calibration
    assert found.sharpness == pytest.approx(0.5, rel=0.03)
    np.testing.assert_allclose(found.biases, [1.0, -0.4, -0.6], atol=0.05)


def test_mean_probabilities_are_the_frequencies_that_the_calibration_stands_for() -> None:
    probabilities, truth = a_model(2.0, [0.5, 0.0, -0.5], 400)
    found = fit_class_calibration(probabilities, truth).calibration
    np.testing.assert_allclose(found.apply(probabilities).mean(axis=0), found.prior, atol=1e-4)
    np.testing.assert_allclose(found.prior, np.bincount(truth) / 400, atol=0.005)


def test_the_prior_is_that_of_validation_however_training_weighed_the_classes() -> None:
    frequencies = np.array([0.7, 0.2, 0.1])
    for class_weight in (None, "balanced"):
        classifier = a_classifier(frequencies=frequencies, class_weight=class_weight)
        validation, others = (classifier.images(2000, frequencies, seed) for seed in (1, 2))
        found = fit_class_calibration(validation.probabilities, validation.truth).calibration
        np.testing.assert_allclose(found.apply(others.probabilities).mean(axis=0), frequencies, atol=0.04)
        np.testing.assert_allclose(found.prior, frequencies, atol=0.04)


def test_correcting_is_bayes_rule() -> None:
    probabilities, truth = a_model(1.0, [0.0, 0.0, 0.0], 2000)
    found = fit_class_calibration(probabilities, truth).calibration
    frequencies = np.array([0.8, 0.15, 0.05])
    expected = found.apply(probabilities).astype(np.float64) * frequencies / found.prior
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.apply(probabilities, frequencies), expected, atol=1e-5)
    np.testing.assert_allclose(found.apply(probabilities, found.prior), found.apply(probabilities), atol=1e-6)


def test_no_mistakes_missing_classes_and_no_images_give_finite_calibrations() -> None:
    sure = np.tile([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], (20, 1))
    for probabilities, truth in ((sure, sure.argmax(axis=1)), (np.zeros((0, 3)), np.zeros(0, dtype=np.int64))):
        found = fit_class_calibration(probabilities, truth).calibration
        assert np.isfinite(found.biases).all() and found.sharpness > 0
        assert (found.prior > 0).all() and found.prior.sum() == pytest.approx(1.0)
        assert np.isfinite(found.apply(sure)).all()


def test_a_resample_to_first_order_is_near_a_new_fit() -> None:
    probabilities, truth = a_model(0.7, [0.3, 0.0, -0.3], 1000)
    rng = np.random.default_rng(3)
    drawn = rng.integers(1000, size=1000)
    weights = np.bincount(drawn, minlength=1000).astype(np.float64)
    (quick,) = fit_class_calibration(probabilities, truth).resampled(weights[None], truth)
    exact = fit_class_calibration(probabilities[drawn], truth[drawn]).calibration
    moved = fit_class_calibration(probabilities, truth).calibration
    assert quick.sharpness == pytest.approx(exact.sharpness, abs=0.02)
    np.testing.assert_allclose(quick.biases, exact.biases, atol=0.02)
    np.testing.assert_allclose(quick.prior, exact.prior, atol=0.002)
    assert abs(moved.biases - exact.biases).max() > 0.03
