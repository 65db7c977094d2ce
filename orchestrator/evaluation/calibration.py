"""Calibration: how far confidence is from accuracy, and the temperature that mends it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from orchestrator.evaluation.metrics import SMALLEST_PROBABILITY, ClassIndices, Probabilities
from orchestrator.evaluation.tallies import Tally, chunks
from orchestrator.records import Calibration, ConfidenceBin

# Gives probabilities [n, K] and true class indices [n] part by part, as often as it is called.
Scored = Callable[[], Iterable[tuple[Probabilities, ClassIndices]]]

COLDEST, HOTTEST = 0.01, 100.0


def calibration_error(gaps: NDArray[np.floating], num_images: NDArray[np.number] | int) -> NDArray[np.float64]:
    """Give the expected calibration error [...] from each bin's gap [..., 15] and the number of images [...].

    A bin's gap is the number of right predictions less the sum of confidences: the error is the mean over images of how
    far accuracy and mean confidence of their bin are apart (Guo et al., "On Calibration of Modern Neural Networks",
    2017, with their 15 bins of equal width). It is above 0 for few images even where confidence is right.
    """
    error: NDArray[np.float64] = np.abs(gaps).sum(axis=-1) / num_images
    return error


def confidence_gaps(tally: Tally) -> NDArray[np.float64]:
    """Give the number of right predictions less the sum of confidences in each bin [15]."""
    gaps: NDArray[np.float64] = tally.confidence_counts[:, 1] - tally.confidence_sums.sum(axis=1)
    return gaps


def reliability(tally: Tally) -> list[ConfidenceBin]:
    """Compare mean confidence with accuracy in each of the bins that hold images, in order."""
    counts, confidence = tally.confidence_counts.sum(axis=1), tally.confidence_sums.sum(axis=1)
    return [
        ConfidenceBin(
            num_images=int(counts[place]),
            confidence=float(confidence[place] / counts[place]),
            accuracy=float(tally.confidence_counts[place, 1] / counts[place]),
        )
        for place in np.flatnonzero(counts).tolist()
    ]


def calibrate(test: Scored, *, validation: Scored) -> Calibration | None:
    """Fit a temperature on validation images and say what it makes of the test's, both given part by part.

    None where no temperature can be fitted, or there are no test images.
    """
    temperature = fit_temperature_of(validation)
    if temperature is None:
        return None
    tally = reduce(add, (Tally.of(scale(probabilities, temperature), truth) for probabilities, truth in test()))
    if not tally.num_images:
        return None
    return Calibration(
        temperature=temperature,
        num_images=sum(len(truth) for _, truth in validation()),
        cross_entropy=tally.loss / tally.num_images,
        expected_calibration_error=float(calibration_error(confidence_gaps(tally), tally.num_images)),
        reliability=reliability(tally),
    )


def fit_temperature(probabilities: Probabilities, truth: ClassIndices) -> float | None:
    """Give the temperature T, 0.01 to 100, of the least cross-entropy of softmax(log p / T) over probabilities [n, K].

    Temperature scaling (Guo et al., 2017): log-probabilities are logits less a number that softmax cancels. Above 1,
    the model is too sure of itself. Cross-entropy is convex in 1 / T, so there is one least value. None where there is
    not: without images, and where none was mistaken, so that every lower T is better.
    """
    return fit_temperature_of(lambda: [(probabilities, truth)])


def fit_temperature_of(scored: Scored) -> float | None:
    """Give the temperature as `fit_temperature` does, of images that are looked at part by part, some 40 times."""
    if not any(_has_mistake(*part) for part in scored()):
        return None

    def loss(log_temperature: float) -> float:
        return _cross_entropy(scored, math.exp(log_temperature))

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return math.exp(float(found.x))


def scale(probabilities: Probabilities, temperature: float) -> NDArray[np.float32]:
    """Give softmax(log p / T) of probabilities [n, K]. Those below 1.2e-38 count as that much."""
    scaled = np.empty(probabilities.shape, dtype=np.float32)
    for rows in chunks(*probabilities.shape):
        scaled[rows] = np.exp(_scaled_logs(probabilities[rows], temperature))
    return scaled


def _has_mistake(probabilities: Probabilities, truth: ClassIndices) -> bool:
    of_truth = probabilities[np.arange(len(truth)), truth]
    return bool((of_truth < probabilities.max(axis=1)).any()) if len(truth) else False


def _cross_entropy(scored: Scored, temperature: float) -> float:
    total, num_images = 0.0, 0
    for probabilities, truth in scored():
        for rows in chunks(*probabilities.shape):
            logs = _scaled_logs(probabilities[rows], temperature)
            total -= float(logs[np.arange(len(logs)), truth[rows]].sum())
        num_images += len(truth)
    return total / num_images


def _scaled_logs(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    logs = np.log(probabilities.astype(np.float64).clip(SMALLEST_PROBABILITY, 1.0))
    scaled: NDArray[np.float64] = log_softmax(logs / temperature, axis=1)
    return scaled
