"""Probabilities that are right of every class on validation images: what a correction for other frequencies needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from orchestrator.evaluation.metrics import SMALLEST_PROBABILITY, ClassIndices, Measures, Probabilities
from orchestrator.evaluation.tallies import chunks

_LEAST_SHARPNESS = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassCalibration:
    """Say that softmax(a ln p + b) are the probabilities of a source with the class frequencies `prior` [K].

    `sharpness` a is one over a temperature, `biases` b [K] have a sum of 0.
    """

    sharpness: float
    biases: Measures
    prior: Measures

    def apply(self, probabilities: Probabilities, frequencies: Measures | None = None) -> NDArray[np.float32]:
        """Calibrate probabilities [n, K], and correct them for images in which classes have other frequencies [K].

        By Bayes' rule each probability is multiplied by its class's frequency there over that in the source, and
        all are scaled to a sum of 1 (Saerens, Latinne and Decaestecker, 2002, equation 2.4).
        """
        shifts = self.biases if frequencies is None else self.biases + np.log(frequencies / self.prior)
        applied = np.empty(probabilities.shape, dtype=np.float32)
        for rows in chunks(*probabilities.shape):
            applied[rows] = softmax(self.sharpness * log_probabilities(probabilities[rows]) + shifts, axis=1)
        return applied


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationFit:
    """Hold a fitted calibration, and what its resamples follow from.

    `gradients` [m, 1 + K] are each validation image's, at the fit; `curvature` [1 + K, 1 + K] is that of them all.
    """

    calibration: ClassCalibration
    gradients: Measures
    curvature: Measures

    def resampled(self, weights: Measures, truth: ClassIndices) -> list[ClassCalibration]:
        """Give the calibration that each of the weights [B, m] of the validation images would give, to first order.

        One step of Newton's method from the fit, with its curvature (Davidson and MacKinnon, "Bootstrap testing in
        nonlinear models", 1999).
        """
        fitted = np.concatenate([[self.calibration.sharpness], self.calibration.biases])
        slopes = (weights - 1.0) @ self.gradients
        moved = fitted - cho_solve(cho_factor(self.curvature), slopes.T).T
        of_class = np.eye(len(self.calibration.biases))[truth]
        return [_calibration(parameters, weight @ of_class) for parameters, weight in zip(moved, weights, strict=True)]


def fit_class_calibration(probabilities: Probabilities, truth: ClassIndices) -> CalibrationFit:
    """Fit sharpness and biases to validation probabilities [m, K] and true class indices [m]; m may be 0.

    Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar, "Maximum Likelihood with Bias-Corrected
    Calibration is Hard-To-Beat at Label Shift Adaptation", 2020): a temperature alone leaves classes that are predicted
    too often as they are, and an estimate of frequencies takes that for a shift. With biases the mean probability of
    each class over validation is its frequency there. So the prior that the probabilities stand for is validation's,
    however training weighed, balanced or smoothed the classes, and need not be guessed from the training split.

    The sum of cross-entropies plus half of (a - 1)^2 + |b|^2 is least: convex, with one finite least value even where
    no image is mistaken or a class has none, and as much as a few images say where there are many.
    """
    logs = log_probabilities(probabilities)
    num_classes = logs.shape[1]
    start = np.concatenate([[1.0], np.zeros(num_classes)])
    bounds = [(_LEAST_SHARPNESS, None), *[(None, None)] * num_classes]
    found = minimize(
        _loss, start, args=(logs, truth), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}
    ).x
    counts = np.bincount(truth, minlength=num_classes).astype(np.float64)
    return CalibrationFit(
        calibration=_calibration(found, counts),
        gradients=_gradients(found, logs, truth),
        curvature=_curvature(found, logs),
    )


def log_probabilities(probabilities: Probabilities) -> Measures:
    """Give ln p [n, K]; those below 1.2e-38 count as that much."""
    logs: Measures = np.log(probabilities.astype(np.float64).clip(SMALLEST_PROBABILITY, 1.0))
    return logs


def _calibration(parameters: Measures, counts: Measures) -> ClassCalibration:
    """Give the calibration of parameters (a, b) that were fitted to images of these counts [K].

    Where the gradient by b is 0, the mean probability of a class is its frequency less b over the number of images.
    """
    biases = parameters[1:]
    # A resample that is only known to first order can come to lie below 0 where a class has next to no images.
    mean = (counts - biases).clip(0.01)
    return ClassCalibration(
        sharpness=max(_LEAST_SHARPNESS, float(parameters[0])), biases=biases, prior=mean / mean.sum()
    )


def _loss(parameters: Measures, logs: Measures, truth: ClassIndices) -> tuple[float, Measures]:
    scores = parameters[0] * logs + parameters[1:]
    total = float((logsumexp(scores, axis=1) - scores[np.arange(len(truth)), truth]).sum())
    pull = parameters - np.concatenate([[1.0], np.zeros(logs.shape[1])])
    return total + 0.5 * float(pull @ pull), _gradients(parameters, logs, truth).sum(axis=0) + pull


def _gradients(parameters: Measures, logs: Measures, truth: ClassIndices) -> Measures:
    probabilities = softmax(parameters[0] * logs + parameters[1:], axis=1)
    places = np.arange(len(truth))
    by_sharpness = (probabilities * logs).sum(axis=1) - logs[places, truth]
    probabilities[places, truth] -= 1.0
    return np.column_stack([by_sharpness, probabilities])


def _curvature(parameters: Measures, logs: Measures) -> Measures:
    probabilities = softmax(parameters[0] * logs + parameters[1:], axis=1)
    apart = logs - (probabilities * logs).sum(axis=1, keepdims=True)
    weighted = probabilities * apart
    curvature = np.eye(1 + logs.shape[1])
    curvature[0, 0] += float((weighted * apart).sum())
    curvature[0, 1:] += weighted.sum(axis=0)
    curvature[1:, 0] += weighted.sum(axis=0)
    curvature[1:, 1:] += np.diag(probabilities.sum(axis=0)) - probabilities.T @ probabilities
    return curvature
