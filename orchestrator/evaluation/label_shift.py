"""How frequent the classes are among images without labels, and with what certainty that can be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from orchestrator.evaluation.class_calibration import (
    CalibrationFit,
    ClassCalibration,
    fit_class_calibration,
    log_probabilities,
)
from orchestrator.evaluation.holding import held
from orchestrator.evaluation.intervals import CONFIDENCE, Units, by_unit
from orchestrator.evaluation.metrics import ClassIndices, Measures, Probabilities
from orchestrator.evaluation.mixtures import MixtureFit, most_likely_shares
from orchestrator.evaluation.parts import PredictionParts, count_images, joined
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.unit_buckets import NUM_BUCKETS, buckets_of
from orchestrator.records import ShiftMethod

MOST_IMAGES = 20_000
"""What probabilities of more images would add to an estimate is nothing beside what validation leaves open."""

_MOST_RESAMPLES = 400
_LEAST_PSEUDO = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Hold what m validation images say of a model: its calibration, and which classes it takes for which.

    `truth` and `predicted` [m] are class indices; `believed` [K, K] is one image for each true class, spread over the
    predicted ones as the calibrated probabilities would have it; `units` [m] number what is drawn as one.
    """

    fit: CalibrationFit
    truth: ClassIndices
    predicted: ClassIndices
    believed: Measures
    units: Units | None

    @classmethod
    def of(cls, validation: PredictionParts, subset: str | None = None) -> Self:
        """Learn from validation images, or those of a subset; of more than 20,000, from as many at even distances."""
        kept = thinned(validation.parts(subset), count_images(validation, subset))
        probabilities, truth = kept.probabilities, kept.indices
        fit = fit_class_calibration(probabilities, truth)
        return cls(
            fit=fit,
            truth=truth,
            predicted=kept.predicted,
            believed=_believed(fit.calibration.apply(probabilities), kept.predicted),
            units=kept.units,
        )

    @property
    def calibration(self) -> ClassCalibration:
        """Give the calibration, with the class frequencies that it stands for."""
        return self.fit.calibration

    @property
    def num_images(self) -> int:
        """Count the validation images."""
        return len(self.truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """Hold what there is of images without labels.

    `counts` [K] are of predicted classes over all of them, `counts_by_unit` [units, K] of those that are drawn as one,
    None where every image is alone: of more than 100,000 images, those are 4,096 buckets of kin (see `UnitBuckets`).
    `probabilities` [n, K] are of at most 20,000 of them, and `units` [n] number what is drawn as one of these; only
    `em` asks for them.
    """

    counts: NDArray[np.int64]
    probabilities: Probabilities
    counts_by_unit: csr_array | None = None
    units: Units | None = None

    @classmethod
    def of(cls, predictions: PredictionParts, subset: str | None = None) -> Self:
        """Take predictions, or those of a subset, as those of images without labels."""
        images = held(predictions, subset)
        if images is None:
            counts, by_bucket = _count_predicted(predictions, subset)
            kept = thinned(predictions.parts(subset), int(counts.sum()))
            return cls(counts=counts, counts_by_unit=by_bucket, probabilities=kept.probabilities, units=kept.units)
        kept, units, predicted = thinned([images], len(images)), images.units, images.predicted
        num_classes = images.num_classes
        return cls(
            counts=np.bincount(predicted, minlength=num_classes),
            counts_by_unit=None if units is None else by_unit(units, predicted, np.ones(len(units)), num_classes),
            probabilities=kept.probabilities,
            units=kept.units,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ShiftEstimate:
    """Hold class frequencies [K] with a sum of 1, and intervals [K, 2] that hold all of them at once at 95%."""

    frequencies: Measures
    intervals: Measures
    is_converged: bool


def estimate_shift(
    source: Source, target: Target, method: ShiftMethod, *, bootstrap_samples: int, seed: int
) -> ShiftEstimate:
    """Estimate the frequencies of K classes among images without labels.

    Images of a class are taken to look as those of validation do, however many there are of each class. What is most
    likely is then sought, by

    - `confusion`: the counts of predicted classes q, each class being taken for others as often as on validation,
      p(predicted i) = sum_k C_ik p_k. Where a p on the simplex solves C p = q it is found: Lipton, Wang and Smola,
      "Detecting and Correcting for Label Shift with Black Box Predictors", 2018, with w_k = p_k over k's frequency in
      the source. Classes are those that were predicted, not probabilities: how sure the model is does not matter then,
      and K counts say all about any number of images. One image for each true class is added to C as the calibrated
      probabilities have it, so that a class without validation images is not taken to be never mistaken.
    - `em`: the calibrated probabilities of each image (Saerens, Latinne and Decaestecker, 2002): surer, as far as they
      are right.

    Half an image a class, in the source's frequencies, is added to the images: what they cannot tell, for being few or
    for classes that are taken for each other (C near singular), stays as in the source.

    Intervals are from resamples (at most 400) of validation and of the images: a weighted likelihood bootstrap (Newton
    and Raftery, "Approximate Bayesian Inference with the Weighted Likelihood Bootstrap", 1994), where each image, or
    all of one kin, weighs an exponential variate, so that none loses a class; and the half images gamma variates with
    their means, which makes what cannot be told as wide as it is, and of a class that was never seen gives the bound of
    Jeffreys. They are as wide as it takes for 95% of resamples to lie in all of them, in multiples of the deviation of
    the arcsine of each root.
    """
    rng = np.random.default_rng(seed)
    num_resamples = min(bootstrap_samples, _MOST_RESAMPLES)
    weights = np.stack([_unit_weights(source.num_images, source.units, rng) for _ in range(num_resamples)])
    prior = source.calibration.prior
    if method == "confusion":
        ones = np.ones(source.num_images)
        found = _fit_counts(source, ones, source.believed, target.counts, _pseudo_images(prior))
        drawn = [_redraw_counts(source, weight, target, rng) for weight in weights]
    else:
        logs = log_probabilities(target.probabilities)
        found = _fit_images(source.calibration, logs, np.ones(len(logs)), _pseudo_images(prior), prior)
        drawn = [
            _fit_images(
                calibration,
                logs,
                _unit_weights(len(logs), target.units, rng),
                _redraw_pseudo(source, rng),
                found.shares,
            ).shares
            for calibration in source.fit.resampled(weights, source.truth)
        ]
    return ShiftEstimate(
        frequencies=found.shares,
        intervals=joint_intervals(found.shares, np.stack(drawn)),
        is_converged=found.is_converged,
    )


def joint_intervals(shares: Measures, resampled: Measures) -> Measures:
    """Bound shares [K] by intervals [K, 2] that 95% of the resampled ones [B, K] lie in with all of theirs.

    The arcsine of the root of a share varies about as much wherever it lies; each interval is as many of its own root
    mean square deviations wide, so that none is spent on classes that are known well.
    """
    middle = np.arcsin(np.sqrt(shares))
    apart = np.abs(np.arcsin(np.sqrt(resampled.clip(0.0, 1.0))) - middle)
    spread = np.sqrt((apart**2).mean(axis=0))
    worst = (apart / np.where(spread > 0.0, spread, 1.0)).max(axis=1)
    reach = float(np.quantile(worst, CONFIDENCE)) * spread
    low, high = (middle - reach).clip(0.0), (middle + reach).clip(None, np.pi / 2)
    return np.stack([np.sin(low) ** 2, np.sin(high) ** 2], axis=1)


def thinned(parts: Iterable[Predictions], num_images: int) -> Predictions:
    """Keep of all these images, given part by part, at most 20,000 at even distances."""
    # These are all numbers where there are fewer images.
    places = np.linspace(0, num_images - 1, min(num_images, MOST_IMAGES)).astype(np.int64)
    kept, seen = [], 0
    for part in parts:
        first, last = np.searchsorted(places, [seen, seen + len(part)])
        kept.append(part.at(places[first:last] - seen))
        seen += len(part)
    return joined(kept)


def _count_predicted(predictions: PredictionParts, subset: str | None) -> tuple[NDArray[np.int64], csr_array | None]:
    """Count the predicted classes [K] part by part, and where images have kin those of its buckets [4,096, K]."""
    counts = np.zeros(predictions.num_classes, dtype=np.int64)
    by_bucket = np.zeros((NUM_BUCKETS, len(counts))) if predictions.has_kin(subset) else None
    for part in predictions.parts(subset):
        predicted = part.predicted
        counts += np.bincount(predicted, minlength=len(counts))
        if by_bucket is not None:
            np.add.at(by_bucket, (buckets_of(part), predicted), 1)
    return counts, None if by_bucket is None else csr_array(by_bucket)


def _believed(calibrated: Probabilities, predicted: ClassIndices) -> Measures:
    """Spread one image of each class over the predicted ones, as calibrated probabilities [m, K] have it.

    To what they say one right answer is added: a class that was never predicted must be possible.
    """
    num_classes = calibrated.shape[1]
    cells = calibrated.astype(np.float64).T @ np.eye(num_classes)[predicted] + np.eye(num_classes)
    spread: Measures = cells / cells.sum(axis=1, keepdims=True)
    return spread


def _pseudo_images(prior: Measures) -> Measures:
    images: Measures = 0.5 * len(prior) * prior
    return images


def _redraw_pseudo(source: Source, rng: np.random.Generator) -> Measures:
    # Variates of a small mean can be too small to be told from 0.
    return rng.gamma(_pseudo_images(source.calibration.prior)).clip(_LEAST_PSEUDO)


def _unit_weights(num_images: int, units: Units | None, rng: np.random.Generator) -> Measures:
    """Draw weights [n] of images, those of one unit having the same."""
    if units is None:
        return rng.exponential(size=num_images)
    weights: Measures = rng.exponential(size=int(units.max()) + 1)[units]
    return weights


def _fit_counts(
    source: Source, weights: Measures, believed: Measures, counts: NDArray[np.number], pseudo: Measures
) -> MixtureFit:
    num_classes = len(pseudo)
    cells = np.bincount(source.truth * num_classes + source.predicted, weights, minlength=num_classes**2)
    rates = cells.reshape(num_classes, num_classes) + believed
    rates /= rates.sum(axis=1, keepdims=True)
    return most_likely_shares(rates.T, counts.astype(np.float64), pseudo, source.calibration.prior)


def _redraw_counts(source: Source, weights: Measures, target: Target, rng: np.random.Generator) -> Measures:
    """Fit resampled counts, by classes that are taken for each other as in resampled validation images."""
    if target.counts_by_unit is None:
        counts = rng.gamma(target.counts)
    else:
        counts = rng.exponential(size=target.counts_by_unit.shape[0]) @ target.counts_by_unit
    believed = rng.gamma(source.believed).clip(_LEAST_PSEUDO)
    return _fit_counts(source, weights, believed, counts, _redraw_pseudo(source, rng)).shares


def _fit_images(
    calibration: ClassCalibration, logs: Measures, weights: Measures, pseudo: Measures, start: Measures
) -> MixtureFit:
    scores = calibration.sharpness * logs + calibration.biases
    likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True)) / calibration.prior
    return most_likely_shares(likelihoods, weights, pseudo, start)
