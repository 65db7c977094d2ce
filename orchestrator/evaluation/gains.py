"""What a group's model gains over the cheapest of its baselines, over all test images and over each subset's."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.evaluation.intervals import paired_gain
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import Baseline, Evaluation

PairedGain = tuple[float, tuple[float, float]]


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
