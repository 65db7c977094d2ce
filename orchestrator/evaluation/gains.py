"""What a group's model gains over the cheapest of its baselines, over all test images and over each subset's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.errors import DataError
from orchestrator.evaluation.answered_images import AnsweredImages
from orchestrator.evaluation.paired_answers import Correct, PairedAnswers, PairedGain, add_up_by_name
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


def answers_of_shipped(
    parts: Iterable[AnsweredImages], baseline: str, shipped: Mapping[str, Correct]
) -> dict[str, PairedAnswers]:
    """Add up, for each subset that another model serves, what that and a baseline got right of its test images.

    `parts` are all of a group's test images, `shipped` tells by subset what that model gets right of them, in their
    order; subsets without test images are left out. Raises DataError for answers over other images.
    """
    found = add_up_by_name(_answers_of_shipped(parts, baseline, shipped))
    for name, answers in found.items():
        if answers.num_images != len(shipped[name]):
            raise DataError(
                f"the model that serves {name} must have been tested on its {answers.num_images} test images",
                value=len(shipped[name]),
            )
    return found


def _answers_of_shipped(
    parts: Iterable[AnsweredImages], baseline: str, shipped: Mapping[str, Correct]
) -> Iterator[tuple[str, PairedAnswers]]:
    seen = dict.fromkeys(shipped, 0)
    for part in parts:
        for name, images in part.by_subset():
            if name in shipped:
                mine = shipped[name][seen[name] :][: len(images.correct)]
                seen[name] += len(images.correct)
                yield name, PairedAnswers.of(mine, {baseline: images.baselines[baseline]}, images.together)
