"""Chooses the test images that are worth looking at."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.predictions import Predictions


def confident_mistakes(predictions: Predictions, most: int) -> list[int]:
    """Give the positions of at most `most` wrong predictions, the highest probability first, equals by id."""
    wrong = np.flatnonzero(~predictions.correct)
    return heapq.nsmallest(most, wrong.tolist(), key=_by_confidence(predictions, _confidence(predictions)))


def confident_answers(predictions: Predictions, most: int) -> list[int]:
    """Give the positions of at most `most` right predictions, one of each class, ordered as mistakes are.

    A class stands there with its most confident one: otherwise one easy class could fill every place.
    """
    right = np.flatnonzero(predictions.correct)
    confidence, truth = _confidence(predictions), predictions.truth
    highest = np.zeros(predictions.probabilities.shape[1], dtype=confidence.dtype)
    np.maximum.at(highest, truth[right], confidence[right])
    candidates = right[confidence[right] == highest[truth[right]]]
    of_classes: dict[int, int] = {}
    for position in sorted(candidates.tolist(), key=_by_confidence(predictions, confidence)):
        of_classes.setdefault(int(truth[position]), position)
    return list(of_classes.values())[:most]


def _confidence(predictions: Predictions) -> NDArray[np.float32]:
    """Give the probability [n] of the predicted class."""
    confidence: NDArray[np.float32] = predictions.probabilities.max(axis=1)
    return confidence


def _by_confidence(predictions: Predictions, confidence: NDArray[np.float32]) -> Callable[[int], tuple[float, str]]:
    return lambda position: (-float(confidence[position]), predictions.ids[position])
