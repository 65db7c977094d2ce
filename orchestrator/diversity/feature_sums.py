"""Sums over feature directions from which means, scatters and similarities of any number of images follow exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Directions = NDArray[np.float64]


class ClassSums(Protocol):
    """Know each class's images and sum [d] of directions."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Give the images of each class."""

    @property
    def sums(self) -> Mapping[str, Directions]:
        """Give the sum of each class's directions."""


def sum_classes(directions: Directions, labels: Sequence[str]) -> tuple[dict[str, int], dict[str, Directions]]:
    """Count and sum up directions [n, d] by their labels [n]."""
    names, classes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), directions.shape[1]))
    np.add.at(sums, classes, directions)
    counts = np.bincount(classes, minlength=len(names))
    return (
        {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        {str(name): total for name, total in zip(names, sums, strict=True)},
    )


def add_classes(one: ClassSums, other: ClassSums) -> tuple[dict[str, int], dict[str, Directions]]:
    """Add the counts and sums of two; neither changes."""
    counts, sums = dict(one.counts), dict(one.sums)
    for name, count in other.counts.items():
        counts[name] = counts.get(name, 0) + count
        sums[name] = sums[name] + other.sums[name] if name in sums else other.sums[name]
    return counts, sums


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectionSums:
    """Hold each class's images and sum [d] of directions."""

    counts: Mapping[str, int]
    sums: Mapping[str, Directions]

    @classmethod
    def of(cls, directions: Directions, labels: Sequence[str]) -> Self:
        """Sum up directions [n, d] with their labels [n]."""
        counts, sums = sum_classes(directions, labels)
        return cls(counts=counts, sums=sums)

    def __add__(self, other: Self) -> Self:
        """Add the images of both; neither changes."""
        counts, sums = add_classes(self, other)
        return replace(self, counts=counts, sums=sums)

    @property
    def num_images(self) -> int:
        """Count the images."""
        return sum(self.counts.values())

    @property
    def classes(self) -> list[str]:
        """List the classes that occur, sorted."""
        return sorted(self.counts)

    def mean(self) -> Directions:
        """Give the mean [d] of all directions."""
        mean: Directions = np.sum([self.sums[name] for name in self.classes], axis=0) / self.num_images
        return mean

    def class_means(self) -> Directions:
        """Give the mean directions [classes, d], in the order of `classes`."""
        return np.array([self.sums[name] / self.counts[name] for name in self.classes])

    def class_deviations(self) -> Directions:
        """Give class means less the mean of all [classes, d], each times the root of its share of the images."""
        shares = np.array([self.counts[name] for name in self.classes]) / self.num_images
        deviations: Directions = (self.class_means() - self.mean()) * np.sqrt(shares)[:, None]
        return deviations


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSums(DirectionSums):
    """Hold the sum of outer products [d, d] of unit directions, and each class's images and sum [d] of directions."""

    outer: NDArray[np.float64]

    @classmethod
    def of(cls, directions: Directions, labels: Sequence[str]) -> Self:
        """Sum up directions [n, d] with their labels [n]."""
        counts, sums = sum_classes(directions, labels)
        return cls(outer=directions.T @ directions, counts=counts, sums=sums)

    def __add__(self, other: Self) -> Self:
        """Add the images of both; neither changes."""
        return replace(super().__add__(other), outer=self.outer + other.outer)

    def covariance(self) -> NDArray[np.float64]:
        """Give the covariance [d, d] of all directions, divided by their number."""
        mean = self.mean()
        covariance: NDArray[np.float64] = self.outer / self.num_images - np.outer(mean, mean)
        return covariance

    def between_classes(self) -> NDArray[np.float64]:
        """Give the covariance [d, d] of the class means, each weighted by its images."""
        deviations = self.class_deviations()
        between: NDArray[np.float64] = deviations.T @ deviations
        return between
