"""The rule by which subsets fall into groups: borders on a score, or the nearest of several centres."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from orchestrator.records import GroupingRule

Values = NDArray[np.float64]
Levels = NDArray[np.int64]


def ungrouped(values: Values) -> GroupingRule:
    """Give the rule of a single group, which standardises values [subsets, measures] to mean 0 and deviation 1.

    A measure that is the same for all subsets is shifted alone.
    """
    deviations = values.std(axis=0)
    return GroupingRule(
        means=values.mean(axis=0).tolist(), deviations=np.where(deviations > 0, deviations, 1.0).tolist()
    )


def standardized(rule: GroupingRule, values: Values) -> Values:
    """Shift and scale values [subsets, measures] as the rule's own subsets."""
    points: Values = (values - np.array(rule.means)) / np.array(rule.deviations)
    return points


def scored(rule: GroupingRule, values: Values) -> Values:
    """Give the score [subsets] that borders cut: a single measure, or the mean of several standardised ones."""
    scores: Values = values[:, 0] if values.shape[1] == 1 else standardized(rule, values).mean(axis=1)
    return scores


def with_borders(rule: GroupingRule, values: Values, levels: Levels, thresholds: Sequence[float] = ()) -> GroupingRule:
    """Cut midway between the scores of neighbouring levels [subsets], and between the thresholds that part them.

    Levels ascend with the scores; they are places among the `thresholds`, where there are any.
    """
    scores = scored(rule, values)
    borders = []
    for below, above in pairwise(np.unique(levels).tolist()):
        highest, lowest = scores[levels == below].max(), scores[levels == above].min()
        middle = highest + (lowest - highest) / 2
        # Between neighbouring numbers there is no middle: the upper one is the border.
        border = middle if middle > highest else lowest
        between = thresholds[below:above]
        borders.append(float(np.clip(border, between[0], between[-1]) if between else border))
    return rule.model_copy(update={"borders": borders})


def with_centres(rule: GroupingRule, values: Values, levels: Levels) -> GroupingRule:
    """Take the mean of each level's standardised members, in the order of levels [subsets], as its centre.

    A centre to which none of the subsets is nearest is left out.
    """
    points = standardized(rule, values)
    centred = rule.model_copy(
        update={"centres": [points[levels == level].mean(axis=0).tolist() for level in np.unique(levels)]}
    )
    occupied = np.unique(place(centred, values))
    return rule.model_copy(update={"centres": [centred.centres[level] for level in occupied]})


def place(rule: GroupingRule, values: Values) -> Levels:
    """Give the group [subsets], from 0, into which each subset falls by its values [subsets, measures].

    Each subset's place is its own affair: it does not depend on the others or on their order.
    """
    if rule.centres:
        gaps = standardized(rule, values)[:, None, :] - np.array(rule.centres)
        nearest: Levels = np.linalg.norm(gaps, axis=2).argmin(axis=1).astype(np.int64)
        return nearest
    return np.searchsorted(rule.borders, scored(rule, values), side="right").astype(np.int64)
