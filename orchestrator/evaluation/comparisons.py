"""Comparisons of all groups' recipes with their baselines, over the pooled test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.evaluation.intervals import paired_gain
from orchestrator.evaluation.predictions import Predictions, number_units
from orchestrator.records import PooledComparison


def pool(predictions: Sequence[Predictions], *, bootstrap_samples: int, seed: int) -> list[PooledComparison]:
    """Compare the recipes with every baseline that all groups have, over the test images of all groups.

    An image weighs the same whatever its group. `accuracy_gain` is the recipes' accuracy minus the
    baseline's, with a 95% paired bootstrap interval over images, kin drawn together also where it is spread over
    groups. Groups without test images have no say.
    """
    tested = [group for group in predictions if len(group)]
    if not tested:
        return []
    correct = np.concatenate([group.correct for group in tested])
    units = number_units([name for group in tested for name in group.together])
    comparisons = []
    for name in tested[0].baselines:
        if any(name not in group.baselines for group in tested):
            continue
        baseline = np.concatenate([group.baselines[name] for group in tested])
        gain, interval = paired_gain(correct, baseline, bootstrap_samples, seed, units)
        comparisons.append(
            PooledComparison(
                baseline=name,
                num_images=len(correct),
                accuracy=float(correct.mean()),
                baseline_accuracy=float(baseline.mean()),
                accuracy_gain=gain,
                accuracy_gain_interval=interval,
            )
        )
    return comparisons
