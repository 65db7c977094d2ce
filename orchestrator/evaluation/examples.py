"""Chooses the test images that are worth looking at."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.parts import joined
from orchestrator.evaluation.predictions import Predictions


def choose_examples(parts: Iterable[Predictions], most: int) -> tuple[Predictions, list[int]]:
    """Choose of predictions, given in one or more parts, at most `most` mistakes and then as many right answers.

    Gives the chosen predictions, and their positions among all images. They are those of `confident_mistakes` and
    `confident_answers`; of every part only what these choose of it is held.
    """
    held: list[Predictions] = []
    places: list[int] = []
    seen = 0
    for part in parts:
        candidates = sorted({*confident_mistakes(part, most), *confident_answers(part, most)})
        held.append(part.at(np.array(candidates, dtype=np.int64)))
        places += [seen + position for position in candidates]
        seen += len(part)
    found = joined(held)
    chosen = confident_mistakes(found, most) + confident_answers(found, most)
    return found.at(np.array(chosen, dtype=np.int64)), [places[position] for position in chosen]


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
