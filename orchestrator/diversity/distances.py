"""How far subsets lie from each other, and from data that a backbone was pretrained on or is trained together with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.profiling import rarefaction_size
from orchestrator.diversity.side_by_side import side_by_side
from orchestrator.diversity.transferability import frechet_distance
from orchestrator.diversity.vendi import on_own_axes
from orchestrator.records import Distances, Relation, SourceDistance, SourceDistances, SourceKind

MOST_IMAGES = 128
MOST_SUBSETS = 32
_DRAWS = 40
_REFERENCES = 4
_OWN_RANGE = 0.95
_SAME_TASK = 0.5
# Halves of fewer would make all distances those of a handful of images.
_LEAST_SOURCE = 16

Directions = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Hold what a backbone was pretrained on or is trained together with: directions [m, d] of some images at random.

    `classes` are those of its task, none where its labels count for nothing. `uri` is its data, `features` the path of
    what the directions were made of.
    """

    kind: SourceKind
    uri: str
    features: str
    directions: Directions
    classes: Sequence[str]


def measure_distances(
    subsets: Mapping[str, Directions],
    classes: Mapping[str, Sequence[str]],
    *,
    sources: Sequence[Source],
    min_images: int,
    seed: int,
) -> Distances:
    """Measure squared Frechet distances of the directions [n, d] of subsets from each other and from every source.

    The distance of two samples shrinks as they grow, so all are taken at one number of images: that of the smallest
    subset with `min_images`, at most 128, and at most half of a source's. Directions are in random order: the first
    are taken. Smaller subsets have no distance, and a source of fewer than 16 images counts as none; between subsets it
    is measured for at most 32 of them.
    """
    compared = min(rarefaction_size([len(rows) for rows in subsets.values()], min_images) or 0, MOST_IMAGES)
    samples = _samples(subsets, compared)
    between = list(samples) if len(samples) <= MOST_SUBSETS else []
    known = [source for source in sources if len(source.directions) >= _LEAST_SOURCE] if samples else []
    return Distances(
        num_images=compared,
        subsets=between,
        between=_matrix([samples[name] for name in between]),
        sources=[_from_source(source, subsets, classes, most=compared, seed=seed) for source in known],
    )


def _from_source(
    source: Source, subsets: Mapping[str, Directions], classes: Mapping[str, Sequence[str]], *, most: int, seed: int
) -> SourceDistances:
    compared = min(most, len(source.directions) // 2)
    own, known = own_range(source.directions, compared, seed=seed), set(source.classes)
    return SourceDistances(
        kind=source.kind,
        uri=source.uri,
        classes=sorted(known),
        features=source.features,
        num_images=compared,
        own_range=own,
        subsets=[
            SourceDistance(
                subset=name,
                **relate(distance_to(source.directions, rows, seed=seed), own, set(classes[name]), known),
            )
            for name, rows in _samples(subsets, compared).items()
        ],
    )


def _samples(subsets: Mapping[str, Directions], num_images: int) -> dict[str, Directions]:
    return {name: rows[:num_images] for name, rows in subsets.items() if len(rows) >= num_images > 1}


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
    return mean_distance(source, lambda _: rows, len(rows), seed=seed)


def mean_distance(
    source: Directions, draw: Callable[[np.random.Generator], Directions], num_images: int, *, seed: int
) -> float:
    """Give the mean distance of what is drawn from random samples of `num_images` of a source [m, d]."""

    def drawn(number: int) -> float:
        generator = np.random.default_rng([seed, number])
        reference = source[generator.permutation(len(source))[:num_images]]
        return _squared_distance(draw(generator), reference)

    return float(np.mean(side_by_side(drawn, range(_REFERENCES))))


def relation(distance: float, own: float, classes: set[str], source_classes: set[str]) -> Relation:
    """Name what a subset shares with the source.

    The domain is the same where the distance is one that a sample of the source has from the rest of it; the task where
    at least half of the subset's classes are classes of the source. A source learnt without labels has no task.
    """
    same_domain = distance <= own
    if not source_classes:
        return "same domain" if same_domain else "another domain"
    same_task = bool(classes) and len(classes & source_classes) >= _SAME_TASK * len(classes)
    if same_domain:
        return "same domain, same task" if same_task else "same domain, another task"
    return "another domain, same task" if same_task else "another domain, another task"


def relate(distance: float, own: float, classes: set[str], source_classes: set[str]) -> dict[str, Any]:
    """Give the fields of a record of how samples of these classes relate to a source."""
    return {
        "distance": distance,
        "num_classes": len(classes),
        "shared_classes": len(classes & source_classes),
        "relation": relation(distance, own, classes, source_classes),
    }


def _matrix(samples: Sequence[Directions]) -> list[list[float]]:
    found = np.zeros((len(samples), len(samples)))
    pairs = list(combinations(range(len(samples)), 2))
    distances = side_by_side(lambda pair: _squared_distance(samples[pair[0]], samples[pair[1]]), pairs)
    for (one, other), distance in zip(pairs, distances, strict=True):
        found[one, other] = found[other, one] = distance
    matrix: list[list[float]] = found.tolist()
    return matrix


def _squared_distance(one: Directions, other: Directions) -> float:
    """Give the squared Frechet distance of directions [n, d] and [m, d]."""
    own = on_own_axes(np.vstack([one, other]))
    first, second = (FeatureSums.of(rows, [""] * len(rows)) for rows in (own[: len(one)], own[len(one) :]))
    return frechet_distance(first, second)
