"""Scores of predictions on images that may have any number of labels, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import eye_array

from orchestrator.errors import DataError
from orchestrator.evaluation.average_precision import Ranking, Truth, average_precisions, mean_average_precision
from orchestrator.evaluation.intervals import Estimates, Sums, Units, percentile_interval, resample
from orchestrator.evaluation.metrics import SMALLEST_PROBABILITY, ClassCounts, Measures, Probabilities, auc
from orchestrator.records import ClassScores, LabelScores, LabelSetScores, MultiLabelScores, Scores

HALF = 0.5
MOST_RESAMPLED_ANSWERS = 2**19
"""The most answers, images times labels, of which the mean average precision is given an interval."""

# Ranking answers again is dear: of many there are fewer resamples, 256 at the least, for some ten seconds of work.
_MOST_WEIGHED_ANSWERS = 2**27


def predict_labels(probabilities: Probabilities, thresholds: Measures | float = HALF) -> Truth:
    """Tell which labels each image is said to have [n, K]: those whose probability reaches their threshold."""
    said: Truth = probabilities >= thresholds
    return said


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
    counts = _count(predict_labels(probabilities), truth)
    areas = np.array([_area(probabilities[:, k], truth[:, k]) for k in range(len(labels))])
    by_class = [
        ClassScores(num_images=int(actual), **{name: _known(value) for name, value in measures.items()})
        for actual, measures in zip(counts.actual.tolist(), _by_label(counts, areas), strict=True)
    ]
    if not len(truth):
        return Scores(num_images=0, confusion_matrix=[], by_class=by_class)
    of_sets = [
        _score_sets(predict_labels(probabilities, cut), truth, bootstrap_samples, seed, units)
        for cut in (HALF, thresholds)
    ]
    precisions = average_precisions(probabilities, truth)
    again = _resampled_precisions([probabilities], truth, bootstrap_samples, seed, units)
    fitted = _count(predict_labels(probabilities, thresholds), truth).f1()
    return Scores(
        num_images=len(truth),
        accuracy=of_sets[0].subset_accuracy,
        accuracy_interval=of_sets[0].subset_accuracy_interval,
        macro_precision=_mean(np.nan_to_num(counts.precision(), nan=0.0)[counts.actual > 0]),
        macro_f1=of_sets[0].macro_f1,
        macro_f1_interval=of_sets[0].macro_f1_interval,
        macro_auc=_mean(areas[np.isfinite(areas)]),
        macro_auc_error=0.0 if np.isfinite(areas).any() else None,
        cross_entropy=_cross_entropy(probabilities, truth),
        confusion_matrix=[],
        by_class=by_class,
        multi_label=MultiLabelScores(
            mean_average_precision=_mean(precisions[np.isfinite(precisions)]),
            mean_average_precision_interval=None if again is None else _interval(again[:, 0]),
            at_half=of_sets[0],
            at_fitted=of_sets[1],
            by_label=[
                LabelScores(
                    label=label,
                    num_images=int(counts.actual[k]),
                    average_precision=_known(precisions[k]),
                    threshold=float(thresholds[k]),
                    f1=_known(fitted[k]),
                )
                for k, label in enumerate(labels)
            ],
        ),
    )


def _by_label(counts: ClassCounts, areas: Measures) -> list[dict[str, float]]:
    columns = (counts.precision(), counts.recall(), counts.f1(), areas)
    return [
        {"precision": precision, "recall": recall, "f1": f1, "auc": area}
        for precision, recall, f1, area in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _count(said: Truth, truth: Truth) -> ClassCounts:
    return ClassCounts(actual=truth.sum(axis=0), predicted=said.sum(axis=0), correct=(said & truth).sum(axis=0))


def _area(probabilities: Probabilities, truth: Truth) -> float:
    return auc(probabilities, truth) if truth.any() and not truth.all() else math.nan


def _cross_entropy(probabilities: Probabilities, truth: Truth) -> float:
    """Give the mean of -ln of the probability that each answer was given, in nats; clipped as `metrics.losses` is."""
    given = np.where(truth, probabilities.astype(np.float64), 1.0 - probabilities.astype(np.float64))
    return float(-np.log(given.clip(SMALLEST_PROBABILITY, 1.0)).mean())


def _score_sets(said: Truth, truth: Truth, samples: int, seed: int, units: Units | None) -> LabelSetScores:
    is_right = (said == truth).all(axis=1, keepdims=True)
    wrong = (said != truth).sum(axis=1, keepdims=True)
    # What each image adds to the counts of every label, to the right images, to the wrong answers, and to the images.
    parts = [truth, said, said & truth, is_right, wrong, np.ones_like(wrong)]
    rows = np.concatenate([part.astype(np.float64) for part in parts], axis=1)
    if units is not None:
        summed = np.zeros((int(units.max()) + 1, rows.shape[1]))
        np.add.at(summed, units, rows)
        rows = summed
    num_labels = truth.shape[1]

    def measure(sums: Sums) -> Estimates:
        return _set_measures(sums, num_labels)

    found = _set_measures(rows.sum(axis=0, keepdims=True), num_labels)[0].tolist()
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    resampled = resample(distinct, counts, samples, seed, measure)
    accuracy, loss, micro, macro = (
        (_known(value), _interval(estimates)) for value, estimates in zip(found, resampled.T, strict=True)
    )
    return LabelSetScores(
        subset_accuracy=accuracy[0],
        subset_accuracy_interval=accuracy[1],
        hamming_loss=loss[0],
        hamming_loss_interval=loss[1],
        micro_f1=micro[0],
        micro_f1_interval=micro[1],
        macro_f1=macro[0],
        macro_f1_interval=macro[1],
    )


def _set_measures(sums: Sums, num_labels: int) -> Estimates:
    """Give subset accuracy, Hamming loss, micro F1 and macro F1 [b, 4] from sums [b, 3 K + 3] over images."""
    actual, predicted, correct = (sums[:, part * num_labels : (part + 1) * num_labels] for part in range(3))
    right, wrong, images = sums[:, -3], sums[:, -2], sums[:, -1]
    answers = actual.sum(axis=1) + predicted.sum(axis=1)
    micro = np.divide(2 * correct.sum(axis=1), answers, out=np.full(len(sums), np.nan), where=answers > 0)
    macro = ClassCounts(actual=actual, predicted=predicted, correct=correct).macro_f1()
    return np.stack([right / images, wrong / (images * num_labels), micro, macro], axis=1)


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
    interval = None if again is None else _interval(again[:, 0] - again[:, 1])
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
    unit_of: NDArray[np.integer] = np.arange(len(truth)) if units is None else units
    num_units = int(unit_of.max()) + 1

    def measure(drawn: Sums) -> Estimates:
        weights = np.asarray(drawn)[:, unit_of]
        return np.stack([_mean_precision(labels, weights) for labels in rankings], axis=1)

    once = np.ones(num_units, dtype=np.int64)
    fewer = min(samples, _MOST_WEIGHED_ANSWERS // truth.size)
    return resample(eye_array(num_units, format="csr"), once, fewer, seed, measure)


def _mean_precision(rankings: Sequence[Ranking], weights: NDArray[np.float64]) -> Estimates:
    """Average the precisions [b] of labels over those that occur among images of weights [b, n]."""
    found = np.stack([ranking.average_precision(weights) for ranking in rankings], axis=1)
    occurs = np.isfinite(found)
    total = np.where(occurs, found, 0.0).sum(axis=1)
    means: Estimates = np.full(len(found), np.nan)
    np.divide(total, occurs.sum(axis=1), out=means, where=occurs.any(axis=1))
    return means


def _interval(estimates: Estimates) -> tuple[float, float] | None:
    """Give the central 95% of the estimates that are defined; None where none is."""
    known = estimates[np.isfinite(estimates)]
    return percentile_interval(known) if len(known) else None


def _mean(values: Measures) -> float | None:
    return float(values.mean()) if len(values) else None


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _check(probabilities: Probabilities, truth: Truth, labels: Sequence[str]) -> None:
    if probabilities.shape != truth.shape or truth.shape[1:] != (len(labels),) or not labels:
        raise DataError(
            f"probabilities and truth must have a row for each image and a column for each of {len(labels)} labels",
            value=f"probabilities of shape {probabilities.shape}, truth of shape {truth.shape}",
        )
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities must be finite", remedy="Check the model's weights for NaN.")
