"""How far subsets lie from each other and from the data that a backbone was pretrained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.profiling import rarefaction_size
from orchestrator.diversity.side_by_side import side_by_side
from orchestrator.diversity.transferability import frechet_distance
from orchestrator.diversity.vendi import on_own_axes
from orchestrator.records import Distances, Relation, SourceDistance

MOST_IMAGES = 128
MOST_SUBSETS = 32
_DRAWS = 40
_REFERENCES = 4
_OWN_RANGE = 0.95
_SAME_TASK = 0.5
# Halves of fewer would make all distances those of a handful of images.
_LEAST_SOURCE = 16

Directions = NDArray[np.float64]


def measure_distances(
    subsets: Mapping[str, Directions],
    classes: Mapping[str, Sequence[str]],
    *,
    source: Directions | None,
    source_classes: Sequence[str],
    min_images: int,
    seed: int,
) -> Distances:
    """Measure squared Frechet distances of the directions [n, d] of subsets, and to those of a source if there is one.

    The distance of two samples shrinks as they grow, so all are taken at one number of images: that of the smallest
    subset with `min_images`, at most 128, and at most half of the source's. Directions are in random order: the first
    are taken. Smaller subsets have no distance, and a source of fewer than 16 images counts as none; between subsets it
    is measured for at most 32 of them.
    """
    if source is not None and len(source) < _LEAST_SOURCE:
        source = None
    sizes = [len(rows) for rows in subsets.values()]
    most = MOST_IMAGES if source is None else min(MOST_IMAGES, len(source) // 2)
    compared = min(rarefaction_size(sizes, min_images) or 0, most)
    samples = {name: rows[:compared] for name, rows in subsets.items() if len(rows) >= compared > 1}
    between = list(samples) if len(samples) <= MOST_SUBSETS else []
    distances = Distances(num_images=compared, subsets=between, between=_matrix([samples[name] for name in between]))
    if source is None or not samples:
        return distances
    own = own_range(source, compared, seed=seed)
    to_source = [
        _to_source(name, distance_to(source, rows, seed=seed), own, set(classes[name]), set(source_classes))
        for name, rows in samples.items()
    ]
    return distances.model_copy(update={"source_range": own, "to_source": to_source})


def own_range(source: Directions, num_images: int, *, seed: int) -> float:
    """Give the distance from the rest of the source that 95% of random samples of `num_images` of it keep within."""
    found = []
    for number in range(_DRAWS):
        order = np.random.default_rng([seed, number]).permutation(len(source))
        found.append(distance_to(source[order[num_images:]], source[order[:num_images]], seed=seed))
    return float(np.quantile(found, _OWN_RANGE))


def distance_to(source: Directions, rows: Directions, *, seed: int) -> float:
    """Give the mean distance of directions [n, d] from random samples of a source [m, d], of n images each.

    One sample alone would decide how near everything seems.
    """
    generators = (np.random.default_rng([seed, number]) for number in range(_REFERENCES))
    samples = [source[generator.permutation(len(source))[: len(rows)]] for generator in generators]
    return float(np.mean(side_by_side(lambda sample: _distance(rows, sample), samples)))


def relation(distance: float, own: float, classes: set[str], source_classes: set[str]) -> Relation:
    """Name what a subset shares with the source.

    The domain is the same where the distance is one that a sample of the source has from the rest of it; the task where
    at least half of the subset's classes are classes of the source. A source learnt without labels has no task.
    """
    same_domain = distance <= own
    if not source_classes:
        return "same domain" if same_domain else "another domain"
    same_task = len(classes & source_classes) >= _SAME_TASK * len(classes)
    if same_domain:
        return "same domain, same task" if same_task else "same domain, another task"
    return "another domain, same task" if same_task else "another domain, another task"


def _matrix(samples: Sequence[Directions]) -> list[list[float]]:
    found = np.zeros((len(samples), len(samples)))
    pairs = list(combinations(range(len(samples)), 2))
    distances = side_by_side(lambda pair: _distance(samples[pair[0]], samples[pair[1]]), pairs)
    for (one, other), distance in zip(pairs, distances, strict=True):
        found[one, other] = found[other, one] = distance
    matrix: list[list[float]] = found.tolist()
    return matrix


def _to_source(name: str, distance: float, own: float, classes: set[str], source_classes: set[str]) -> SourceDistance:
    return SourceDistance(
        subset=name,
        distance=distance,
        num_classes=len(classes),
        shared_classes=len(classes & source_classes),
        relation=relation(distance, own, classes, source_classes),
    )


def _distance(one: Directions, other: Directions) -> float:
    own = on_own_axes(np.vstack([one, other]))
    first, second = (FeatureSums.of(rows, [""] * len(rows)) for rows in (own[: len(one)], own[len(one) :]))
    return frechet_distance(first, second)
