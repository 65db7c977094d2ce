"""Metrics of predicted probabilities against true classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from orchestrator.errors import DataError
from orchestrator.evaluation.intervals import bootstrap_interval
from orchestrator.records import Scores

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)

Probabilities = NDArray[np.floating]
ClassIndices = NDArray[np.integer]


def score(probabilities: Probabilities, truth: ClassIndices, *, bootstrap_samples: int, seed: int) -> Scores:
    """Score the probabilities [n, K] of K classes against the true class indices [n].

    The predicted class is the most probable one, the first of equals. The interval of accuracy is the 95%
    percentile bootstrap over images. Measures that are undefined are None: all of them without images, AUC
    also where no class has images both of itself and of others. Raises DataError when the shapes do not fit, a
    probability is not finite or a class index is outside [0, K).
    """
    _check(probabilities, truth)
    num_images = len(truth)
    predicted = predict_classes(probabilities)
    matrix = confusion_matrix(truth, predicted, probabilities.shape[1])
    if num_images == 0:
        return Scores(
            num_images=0,
            accuracy=None,
            accuracy_interval=None,
            macro_f1=None,
            macro_auc=None,
            cross_entropy=None,
            confusion_matrix=matrix.tolist(),
        )
    correct = predicted == truth
    return Scores(
        num_images=num_images,
        accuracy=float(correct.mean()),
        accuracy_interval=bootstrap_interval(correct, bootstrap_samples, seed),
        macro_f1=macro_f1(matrix),
        macro_auc=macro_auc(probabilities, truth),
        cross_entropy=cross_entropy(probabilities, truth),
        confusion_matrix=matrix.tolist(),
    )


def predict_classes(probabilities: Probabilities) -> NDArray[np.int64]:
    """Give the index [n] of the most probable class for probabilities [n, K], the first of equals."""
    if not len(probabilities):
        return np.zeros(0, dtype=np.int64)
    best: NDArray[np.int64] = probabilities.argmax(axis=1).astype(np.int64)
    return best


def confusion_matrix(truth: ClassIndices, predicted: ClassIndices, num_classes: int) -> NDArray[np.int64]:
    """Count images [K, K] by true class (rows) and predicted class (columns)."""
    cells = truth.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """Average F1 over the classes that occur in truth, each weighing the same.

    A class that never occurs in truth is left out: its F1 would be 0 however good the predictions are. Raises
    DataError for a confusion matrix [K, K] without images.
    """
    actual, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    present = actual > 0
    if not present.any():
        raise DataError("macro F1 needs at least one image")
    f1 = 2.0 * np.diag(matrix)[present] / (actual + predicted)[present]
    return float(f1.mean())


def macro_auc(probabilities: Probabilities, truth: ClassIndices) -> float | None:
    """Average the one-vs-rest area under the ROC curve over the classes with images of themselves and of others.

    From ranks, ties counting half (Hanley and McNeil, 1982). None when there is no such class.
    """
    counts = np.bincount(truth, minlength=probabilities.shape[1])
    eligible = np.flatnonzero((counts > 0) & (counts < len(truth)))
    if not len(eligible):
        return None
    return float(np.mean([_auc(probabilities[:, index], truth == index) for index in eligible]))


def cross_entropy(probabilities: Probabilities, truth: ClassIndices) -> float:
    """Average -ln p of the true class over images, in nats.

    p is clipped at the smallest normal float32, 1.2e-38: a true class whose probability underflowed to 0 costs
    87.3 nats, not infinitely many. Raises DataError without images.
    """
    if not len(truth):
        raise DataError("cross-entropy needs at least one image")
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.log(of_truth.clip(SMALLEST_PROBABILITY, 1.0)).mean())


def _auc(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def _check(probabilities: Probabilities, truth: ClassIndices) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] == 0 or truth.shape != probabilities.shape[:1]:
        raise DataError(
            "probabilities must have a row for each image and a column for each class",
            value=f"probabilities of shape {probabilities.shape}, truth of shape {truth.shape}",
        )
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities must be finite", remedy="Check the model's weights for NaN.")
    if len(truth) and not 0 <= truth.min() <= truth.max() < probabilities.shape[1]:
        raise DataError(
            f"class indices must be in [0, {probabilities.shape[1]})", value=f"{truth.min()} to {truth.max()}"
        )
