"""How far groups lie from the data that a backbone was pretrained on or is trained together with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.diversity.distances import Directions, mean_distance, relate
from orchestrator.records import GroupDistance, SourceDistances


@dataclass(frozen=True, kw_only=True, eq=False)
class SubsetRows:
    """Hold directions [n, d] of some training images of a subset, how many it has in all, and their classes."""

    directions: Directions
    num_images: int
    classes: Sequence[str]


def measure_group_distances(
    groups: Mapping[str, Sequence[str]],
    subsets: Mapping[str, SubsetRows],
    found: SourceDistances,
    source: Directions,
    *,
    seed: int,
) -> list[GroupDistance]:
    """Measure squared Frechet distances of groups, named with their subsets, from the directions [m, d] of a source.

    At the number of images at which subsets were compared with it, each group by random samples of its training images:
    an image is as likely to be drawn whatever its subset. Of subsets without directions nothing is known; a group whose
    other ones have too few in all has no distance.
    """
    distances = []
    for name, members in groups.items():
        known = [subsets[member] for member in members if member in subsets]
        if sum(len(rows.directions) for rows in known) < found.num_images:
            continue
        classes = {label for rows in known for label in rows.classes}
        away = _distance_to(source, known, found.num_images, seed=seed)
        distances.append(GroupDistance(group=name, **relate(away, found.own_range, classes, set(found.classes))))
    return distances


def _distance_to(source: Directions, members: Sequence[SubsetRows], num_images: int, *, seed: int) -> float:
    """Give the mean distance of random samples of a group from random samples of a source."""
    rows = np.concatenate([member.directions for member in members])
    weights = np.concatenate([_weights(member) for member in members])

    def draw(generator: np.random.Generator) -> Directions:
        return rows[generator.choice(len(rows), size=num_images, replace=False, p=weights / weights.sum())]

    return mean_distance(source, draw, num_images, seed=seed)


def _weights(member: SubsetRows) -> NDArray[np.float64]:
    return np.full(len(member.directions), member.num_images / len(member.directions))
