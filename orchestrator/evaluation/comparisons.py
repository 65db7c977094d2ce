"""Comparisons of all groups' recipes with their baselines, over the pooled test images."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.evaluation.paired_answers import PairedAnswers, add_up
from orchestrator.records import PooledComparison


def pool(groups: Sequence[PairedAnswers], *, bootstrap_samples: int, seed: int) -> list[PooledComparison]:
    """Compare the recipes with every baseline that all groups have, over the test images of all groups.

    `groups` hold what recipes and their baselines got right. An image weighs the same whatever its group.
    `accuracy_gain` is the recipes' accuracy minus the baseline's, with a 95% paired bootstrap interval over images, kin
    drawn together also where it is spread over groups. Groups without test images have no say.
    """
    tested = [group for group in groups if group.num_images]
    if not tested:
        return []
    common = [name for name in tested[0].others if all(name in group.others for group in tested)]
    answers = add_up(group.over(common) for group in tested)
    comparisons = []
    for name in common:
        gain, interval = answers.gain_over(name, bootstrap_samples, seed)
        comparisons.append(
            PooledComparison(
                baseline=name,
                num_images=answers.num_images,
                accuracy=answers.accuracy,
                baseline_accuracy=answers.accuracy_of(name),
                accuracy_gain=gain,
                accuracy_gain_interval=interval,
            )
        )
    return comparisons
