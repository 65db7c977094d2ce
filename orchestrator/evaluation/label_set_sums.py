"""Sums over images from which the scores of sets of labels follow, with their intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.intervals import Estimates, Sums, finite_interval, resample
from orchestrator.evaluation.metrics import ClassCounts, Truth, divided
from orchestrator.evaluation.scoring import known
from orchestrator.records import LabelSetScores

# After the three counts of every label.
RIGHT, WRONG, IMAGES = -3, -2, -1


def num_sums(num_labels: int) -> int:
    """Count what an image adds up over K labels."""
    return 3 * num_labels + 3


def image_sums(said: Truth, truth: Truth) -> Sums:
    """Give what each image adds up [n, 3 K + 3], from what it is said to have and what it has [n, K].

    For every label that it is there, that it is said, and both; then whether all answers are right, how many are wrong,
    and the image itself.
    """
    is_right = (said == truth).all(axis=1, keepdims=True)
    wrong = (said != truth).sum(axis=1, keepdims=True)
    parts = [truth, said, said & truth, is_right, wrong, np.ones_like(wrong)]
    return np.concatenate([part.astype(np.float64) for part in parts], axis=1)


def label_counts(sums: Sums) -> ClassCounts:
    """Take the counts of labels [..., K] from sums [..., 3 K + 3]."""
    num_labels = (sums.shape[-1] - 3) // 3
    actual, predicted, correct = (sums[..., part * num_labels : (part + 1) * num_labels] for part in range(3))
    return ClassCounts(actual=actual, predicted=predicted, correct=correct)


def score_sums(rows: Sums, counts: NDArray[np.int64], samples: int, seed: int) -> LabelSetScores:
    """Score sums [D, 3 K + 3] of what a bootstrap draws as one; `counts` [D] say how many have the same."""
    found = _measures((counts @ rows)[None])[0].tolist()
    resampled = resample(rows, counts, samples, seed, _measures)
    accuracy, loss, micro, macro = (
        (known(value), finite_interval(estimates)) for value, estimates in zip(found, resampled.T, strict=True)
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


def _measures(sums: Sums) -> Estimates:
    """Give subset accuracy, Hamming loss, micro F1 and macro F1 [b, 4] from sums [b, 3 K + 3] over images."""
    counts = label_counts(sums)
    num_labels = counts.actual.shape[-1]
    answers = counts.actual.sum(axis=1) + counts.predicted.sum(axis=1)
    micro = divided(2 * counts.correct.sum(axis=1), answers)
    right, wrong, images = sums[:, RIGHT], sums[:, WRONG], sums[:, IMAGES]
    return np.stack([right / images, wrong / (images * num_labels), micro, counts.macro_f1()], axis=1)
