"""What a group's model gains over the cheapest of its baselines, over all test images and over each subset's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.intervals import paired_gain
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import Baseline, Evaluation

PairedGain = tuple[float, tuple[float, float]]
Correct = NDArray[np.bool_]


def cheapest_baseline(evaluation: Evaluation) -> Baseline | None:
    """Give the baseline that took the fewest seconds of those that were trained and tested, the first of equals."""
    tested = [baseline for baseline in evaluation.baselines if baseline.accuracy_gain_interval is not None]
    return min(tested, key=lambda baseline: baseline.seconds, default=None)


def subset_gains(
    predictions: Predictions, baseline: str, *, bootstrap_samples: int, seed: int
) -> Iterator[tuple[str, int, PairedGain]]:
    """Give each tested subset, its images, and its gain over a baseline with its paired bootstrap interval."""
    for name in sorted(set(predictions.subsets)):
        found = predictions.for_subset(name)
        gain = paired_gain(found.correct, found.baselines[baseline], bootstrap_samples, seed, found.units)
        yield name, len(found), gain


def shipped_gains(
    predictions: Predictions,
    baseline: str,
    shipped: Mapping[str, Correct],
    *,
    bootstrap_samples: int,
    seed: int,
) -> Iterator[tuple[str, int, PairedGain]]:
    """Give each subset that another model serves, its images, and the gain of that over a baseline with its interval.

    `shipped` tells by subset what that model gets right of the same test images, in their order; subsets without test
    images are left out. Raises DataError for answers over other images.
    """
    for name, correct in shipped.items():
        found = predictions.for_subset(name)
        if len(found):
            gain = paired_gain(correct, found.baselines[baseline], bootstrap_samples, seed, found.units)
            yield name, len(found), gain
