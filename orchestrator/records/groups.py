"""The records of subsets put together, and of later ones assigned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from orchestrator.config import DiversityMeasure
from orchestrator.records.base import Record, Value
from orchestrator.records.recipes import Hyperparameters


class Group(Value):
    """Name subsets of like diversity. `small_subsets` are those below `min_images`, put to the nearest group.

    `stability` has the share of bootstrap redraws in which each subset comes to this group; empty where not known.
    """

    name: str
    subsets: list[str]
    num_images: int
    score_range: tuple[float, float]
    small_subsets: list[str] = []
    stability: dict[str, float] = {}

    @classmethod
    def put_together(cls, name: str, subsets: Sequence[str]) -> Self:
        """Put subsets together that no grouping has: nothing is counted or measured of them."""
        return cls(name=name, subsets=list(subsets), num_images=0, score_range=(0.0, 0.0))


class GroupingRule(Value):
    """Say into which group any subset falls, by its values of the grouping measures.

    A value is standardised by `means` and `deviations`, one for each measure. With `centres` [groups, measures], of
    standardised values, the nearest one is the subset's group. Else the subset's score, which is the value of a single
    measure as it stands and the mean of several standardised ones, is cut at `borders`, which ascend, one less than
    there are groups; on a border it goes up.
    """

    means: list[float]
    deviations: list[float]
    borders: list[float] = []
    centres: list[list[float]] = []


class Groups(Record):
    """Hold the groups in ascending order of diversity.

    `difference_p_value` says how likely the subsets differ as much as they do by chance; None where not known. `rule`
    puts the profile's subsets into their groups, and later ones too.
    """

    groups: list[Group]
    method: str
    measures: list[DiversityMeasure]
    difference_p_value: float | None = None
    rule: GroupingRule


class Assignment(Value):
    """Say which of the existing groups a later subset falls into, and what the group has for it.

    `values` are those of the grouping measures. `certainty` is the share of bootstrap redraws in which the subset
    comes to this group; None where it cannot be told. `is_small` says that it has less than `grouping.min_images`,
    `is_comparable` that it has as many images as the run compared feature diversity at: with fewer it scores too low.
    `unknown_classes` are those of its classes that no subset of the group has. `recipe` and `model`, a path below the
    run directory, are None before they are made.
    """

    subset: str
    group: str
    num_images: int
    values: dict[DiversityMeasure, float]
    certainty: float | None
    is_small: bool
    is_comparable: bool
    unknown_classes: list[str] = []
    recipe: Hyperparameters | None = None
    model: str | None = None


class Assignments(Record):
    """Hold the groups of the subsets in the data at `uri`, ordered by name.

    `unmeasured` are subsets without a usable image in the split that the profile measures.
    """

    uri: str
    assignments: list[Assignment]
    unmeasured: list[str]
    num_quarantined: int
