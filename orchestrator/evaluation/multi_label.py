"""Scores of predictions on images that may have any number of labels, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DataError
from orchestrator.evaluation.average_precision import Ranking, average_precisions, mean_average_precision
from orchestrator.evaluation.intervals import Estimates, Sums, Units, finite_interval
from orchestrator.evaluation.label_set_sums import (
    IMAGES,
    image_sums,
    label_counts,
    num_sums,
    score_sums,
)
from orchestrator.evaluation.label_set_tallies import LabelSetTally
from orchestrator.evaluation.metrics import (
    HALF,
    Measures,
    Probabilities,
    Truth,
    auc,
    binary_losses,
    finite_means,
    predict_labels,
)
from orchestrator.evaluation.rank_resampling import MOST_RESAMPLED_ANSWERS, resample_ranks
from orchestrator.evaluation.scoring import class_scores, known
from orchestrator.records import LabelScores, LabelSetScores, MultiLabelScores, Scores


def fit_thresholds(probabilities: Probabilities, truth: Truth) -> Measures:
    """Give for each label [K] the threshold of the best F1 on these images, 0.5 where none has the label.

    Thresholds lie in the middle between two neighbouring probabilities; of those with equal F1 the one nearest to 0.5
    is taken. F1 of a label does not depend on the others: the best macro F1 is that of the best thresholds (Lipton,
    Elkan and Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", 2014).
    """
    return np.array([_fit_threshold(probabilities[:, k], truth[:, k]) for k in range(truth.shape[1])], dtype=np.float64)


def _fit_threshold(probabilities: Probabilities, truth: Truth) -> float:
    if not truth.any():
        return HALF
    ranking = Ranking.of(probabilities, truth)
    found = np.cumsum(ranking.truth)[ranking.ends]
    f1 = 2 * found / (ranking.ends + 1 + found[-1])
    values = probabilities[ranking.order[ranking.ends]].astype(np.float64)
    middles = (values + np.append(values[1:], 0.0)) / 2
    best = np.flatnonzero(f1 == f1.max())
    return float(middles[best[np.abs(middles[best] - HALF).argmin()]])


def score_label_sets(
    probabilities: Probabilities,
    truth: Truth,
    labels: Sequence[str],
    thresholds: Measures,
    *,
    bootstrap_samples: int,
    seed: int,
    units: Units | None = None,
) -> Scores:
    """Score the probabilities [n, K] of K labels against which of them each image has, booleans [n, K].

    The accuracy is the share of images all of whose labels are right at the threshold 0.5, the cross-entropy the mean
    binary one in nats over images and labels; F1, precision and recall are at 0.5 too, `multi_label` also has them at
    `thresholds` [K]. Intervals are 95% percentile bootstraps over images, those that share their number in `units` [n]
    drawn as one. Raises DataError when the shapes do not fit or a probability is not finite.
    """
    _check(probabilities, truth, labels)
    if not len(truth):
        return _no_scores(len(labels))
    areas = np.array([_area(probabilities[:, k], truth[:, k]) for k in range(len(labels))])
    again = _resampled_precisions([probabilities], truth, bootstrap_samples, seed, units)
    return _scores(
        _Measured(
            areas=areas,
            area_errors=np.zeros_like(areas),
            precisions=average_precisions(probabilities, truth),
            precision_errors=np.zeros_like(areas),
            precision_interval=None if again is None else finite_interval(again[:, 0]),
            cross_entropy=float(binary_losses(probabilities, truth).mean()),
            half=_score_sets(predict_labels(probabilities), truth, bootstrap_samples, seed, units),
            fitted=_score_sets(predict_labels(probabilities, thresholds), truth, bootstrap_samples, seed, units),
        ),
        labels,
        thresholds,
    )


def score_label_set_tally(
    tally: LabelSetTally, labels: Sequence[str], thresholds: Measures, *, bootstrap_samples: int, seed: int
) -> Scores:
    """Score tallied predictions over K labels as `score_label_sets` does.

    AUC and average precision are of bins, with a bound of what that costs. A bootstrap draws buckets of images, and the
    mean average precision has no interval.
    """
    if not tally.num_images:
        return _no_scores(len(labels))
    histograms, held = tally.histograms, tally.is_held
    once = np.ones(np.count_nonzero(held), dtype=np.int64)
    return _scores(
        _Measured(
            areas=histograms.aucs(),
            area_errors=histograms.auc_errors(),
            precisions=histograms.average_precisions(),
            precision_errors=histograms.average_precision_errors(),
            precision_interval=None,
            cross_entropy=tally.loss / (tally.num_images * len(labels)),
            half=_Sets.of(tally.at_half[held], once, bootstrap_samples, seed),
            fitted=_Sets.of(tally.at_fitted[held], once, bootstrap_samples, seed),
        ),
        labels,
        thresholds,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sets:
    """Hold what images add up [3 K + 3], and the scores of sets of labels that follow from it."""

    sums: Sums
    scores: LabelSetScores

    @classmethod
    def of(cls, rows: Sums, counts: NDArray[np.int64], samples: int, seed: int) -> _Sets:
        """Score what a bootstrap draws as one; see `score_sums`."""
        return cls(sums=counts @ rows, scores=score_sums(rows, counts, samples, seed))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """Hold what was measured of images: by label [K], and of sets of labels at 0.5 and at fitted thresholds."""

    areas: Measures
    area_errors: Measures
    precisions: Measures
    precision_errors: Measures
    precision_interval: tuple[float, float] | None
    cross_entropy: float
    half: _Sets
    fitted: _Sets


def _no_scores(num_labels: int) -> Scores:
    counts = label_counts(np.zeros(num_sums(num_labels)))
    by_class = class_scores(counts, np.full(num_labels, np.nan))
    return Scores(num_images=0, confusion_matrix=[], by_class=by_class)


def _scores(found: _Measured, labels: Sequence[str], thresholds: Measures) -> Scores:
    at_half = found.half.scores
    counts, f1 = label_counts(found.half.sums), label_counts(found.fitted.sums).f1()
    has_area, has_precision = np.isfinite(found.areas), np.isfinite(found.precisions)
    return Scores(
        num_images=int(found.half.sums[IMAGES]),
        accuracy=at_half.subset_accuracy,
        accuracy_interval=at_half.subset_accuracy_interval,
        macro_precision=_mean(np.nan_to_num(counts.precision(), nan=0.0)[counts.actual > 0]),
        macro_f1=at_half.macro_f1,
        macro_f1_interval=at_half.macro_f1_interval,
        macro_auc=_mean(found.areas[has_area]),
        macro_auc_error=_mean(found.area_errors[has_area]),
        cross_entropy=found.cross_entropy,
        confusion_matrix=[],
        by_class=class_scores(counts, found.areas),
        multi_label=MultiLabelScores(
            mean_average_precision=_mean(found.precisions[has_precision]),
            mean_average_precision_error=_mean(found.precision_errors[has_precision]),
            mean_average_precision_interval=found.precision_interval,
            at_half=at_half,
            at_fitted=found.fitted.scores,
            by_label=[
                LabelScores(
                    label=label,
                    num_images=int(counts.actual[k]),
                    average_precision=known(found.precisions[k]),
                    threshold=float(thresholds[k]),
                    f1=known(f1[k]),
                )
                for k, label in enumerate(labels)
            ],
        ),
    )


def _area(probabilities: Probabilities, truth: Truth) -> float:
    return auc(probabilities, truth) if truth.any() and not truth.all() else math.nan


def _score_sets(said: Truth, truth: Truth, samples: int, seed: int, units: Units | None) -> _Sets:
    """Score what images are said to have [n, K], those drawn as one together."""
    rows = image_sums(said, truth)
    if units is not None:
        summed = np.zeros((int(units.max()) + 1, rows.shape[1]))
        np.add.at(summed, units, rows)
        rows = summed
    return _Sets.of(*np.unique(rows, axis=0, return_counts=True), samples, seed)


def precision_gain(
    mine: Probabilities,
    others: Probabilities,
    truth: Truth,
    *,
    bootstrap_samples: int,
    seed: int,
    units: Units | None = None,
) -> tuple[float, float, tuple[float, float] | None] | None:
    """Give the mean average precision of others' probabilities [n, K], by how much mine is higher, and an interval.

    That is of a paired bootstrap of images, None where there are too many answers. None where no image has a label.
    """
    means = [mean_average_precision(probabilities, truth) for probabilities in (mine, others)]
    if means[0] is None or means[1] is None:
        return None
    again = _resampled_precisions([mine, others], truth, bootstrap_samples, seed, units)
    interval = None if again is None else finite_interval(again[:, 0] - again[:, 1])
    return means[1], means[0] - means[1], interval


def _resampled_precisions(
    models: Sequence[Probabilities], truth: Truth, samples: int, seed: int, units: Units | None
) -> Estimates | None:
    """Give each model's mean average precision [samples, M] on the same resamples, over the labels that occur in them.

    None where there are too many answers, or no label occurs.
    """
    if truth.size > MOST_RESAMPLED_ANSWERS or not truth.any():
        return None
    occurring = np.flatnonzero(truth.any(axis=0)).tolist()
    rankings = [[Ranking.of(found[:, k], truth[:, k]) for k in occurring] for found in models]
    return resample_ranks(
        len(truth),
        truth.shape[1],
        lambda weights: np.stack([_mean_precision(labels, weights) for labels in rankings], axis=1),
        samples=samples,
        seed=seed,
        units=units,
    )


def _mean_precision(rankings: Sequence[Ranking], weights: NDArray[np.float64]) -> Estimates:
    """Average the precisions [b] of labels over those that occur among images of weights [b, n]."""
    return finite_means(np.stack([ranking.average_precision(weights) for ranking in rankings], axis=1))


def _mean(values: Measures) -> float | None:
    return float(values.mean()) if len(values) else None


def _check(probabilities: Probabilities, truth: Truth, labels: Sequence[str]) -> None:
    if probabilities.shape != truth.shape or truth.shape[1:] != (len(labels),) or not labels:
        raise DataError(
            f"probabilities and truth must have a row for each image and a column for each of {len(labels)} labels",
            value=f"probabilities of shape {probabilities.shape}, truth of shape {truth.shape}",
        )
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities must be finite", remedy="Check the model's weights for NaN.")
