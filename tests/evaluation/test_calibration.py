import numpy as np
import pytest
from evaluation_examples import random_probabilities
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from orchestrator.evaluation.calibration import (
    calibrate,
    calibration_error,
    confidence_gaps,
    fit_temperature,
    reliability,
    scale,
)
from orchestrator.evaluation.tallies import Tally

Sample = tuple[NDArray[np.float64], NDArray[np.int64]]


def error_of(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    return float(calibration_error(confidence_gaps(Tally.of(probabilities, truth)), len(truth)))


def a_sure_model(temperature: float, num_images: int, seed: int = 0, num_classes: int = 5) -> Sample:
    """Draw truth from softmax(logits), and give the probabilities of a model with `temperature` times those logits."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.normal(size=(num_images, num_classes))
    exact = softmax(logits, axis=1)
    truth = (exact.cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return softmax(temperature * logits, axis=1), truth


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_error_is_the_mean_over_bins_as_guo_et_al_define_it(decimals: int | None) -> None:
    rng = np.random.default_rng(1)
    probabilities, truth = random_probabilities(rng, 500, 3, decimals), rng.integers(3, size=500)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    expected = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        held = (confidence > low) & (confidence <= high)
        if held.any():
            expected += held.mean() * abs(right[held].mean() - confidence[held].mean())
    assert error_of(probabilities, truth) == pytest.approx(expected, abs=1e-9)


def test_reliability_shows_the_bins_that_hold_images() -> None:
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.45, 0.55]])
    found = reliability(Tally.of(probabilities, np.array([0, 1, 1])))
    assert [(held.num_images, held.accuracy) for held in found] == [(1, 1.0), (2, 0.5)]
    assert [held.confidence for held in found] == pytest.approx([0.55, 0.91])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    probabilities, truth = a_sure_model(temperature, 20_000)
    assert fit_temperature(probabilities, truth) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_is_where_scikit_learns_log_loss_is_least() -> None:
    probabilities, truth = a_sure_model(1.7, 300)
    logits = np.log(probabilities)

    def loss(temperature: float) -> float:
        return float(log_loss(truth, softmax(logits / temperature, axis=1), labels=np.arange(5)))

    found = fit_temperature(probabilities, truth)
    assert found is not None
    assert loss(found) <= minimize_scalar(loss, bounds=(0.1, 10), method="bounded").fun + 1e-9


def test_fitting_chunk_by_chunk_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, truth = a_sure_model(2.0, 200)
    whole, scaled = fit_temperature(probabilities, truth), scale(probabilities, 2.0)
    monkeypatch.setattr("orchestrator.evaluation.tallies._CHUNK_CELLS", 30)
    assert fit_temperature(probabilities, truth) == pytest.approx(whole, rel=1e-6)
    np.testing.assert_array_equal(scale(probabilities, 2.0), scaled)


def test_an_over_confident_model_is_mended_on_images_that_were_not_fitted() -> None:
    validation, (probabilities, truth) = a_sure_model(3.0, 2000, seed=1), a_sure_model(3.0, 2000, seed=2)
    found = calibrate(lambda: [(probabilities, truth)], validation=lambda: [validation])
    assert found is not None and found.num_images == 2000
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert error_of(probabilities, truth) > 0.1 and found.expected_calibration_error < 0.03
    assert found.cross_entropy < log_loss(truth, probabilities) - 0.2
    scaled = scale(probabilities, found.temperature)
    assert found.expected_calibration_error == pytest.approx(error_of(scaled, truth), abs=1e-12)
    assert found.cross_entropy == pytest.approx(log_loss(truth, scaled), abs=1e-5)
    assert sum(held.num_images for held in found.reliability) == 2000
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))


def test_without_a_mistake_or_without_images_no_temperature_can_be_told() -> None:
    sure = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(sure, np.array([0, 1])) is None
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) is None
    assert calibrate(lambda: [(sure, np.array([0, 0]))], validation=lambda: [(sure, np.array([0, 1]))]) is None
    nothing = (np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    assert calibrate(lambda: [nothing], validation=lambda: [(sure, np.array([0, 0]))]) is None
    assert calibrate(lambda: [(sure, np.array([0, 0]))], validation=lambda: [nothing]) is None


def test_a_model_that_is_worse_than_guessing_is_as_unsure_as_can_be() -> None:
    wrong = np.tile([[0.9, 0.1]], (10, 1))
    assert fit_temperature(wrong, np.ones(10, dtype=np.int64)) == pytest.approx(100.0, rel=0.01)


def test_probabilities_that_underflowed_scale_without_a_warning() -> None:
    scaled = scale(np.array([[1.0, 0.0]], dtype=np.float32), 2.0)
    assert np.isfinite(scaled).all() and scaled.sum() == pytest.approx(1.0)
