"""What a group's model gains over the cheapest of its baselines, over all test images and over each subset's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.evaluation.paired_answers import PairedAnswers, PairedGain
from orchestrator.records import Baseline, Evaluation


def cheapest_baseline(evaluation: Evaluation) -> Baseline | None:
    """Give the baseline that took the fewest seconds of those that were trained and tested, the first of equals."""
    tested = [baseline for baseline in evaluation.baselines if baseline.accuracy_gain_interval is not None]
    return min(tested, key=lambda baseline: baseline.seconds, default=None)


def subset_gains(
    answers: Mapping[str, PairedAnswers], baseline: str, *, bootstrap_samples: int, seed: int
) -> Iterator[tuple[str, int, PairedGain]]:
    """Give each tested subset, its images, and its gain over a baseline with its paired bootstrap interval.

    `answers` hold, by subset, what the group's model and its baselines got right.
    """
    for name, found in sorted(answers.items()):
        yield name, found.num_images, found.gain_over(baseline, bootstrap_samples, seed)
