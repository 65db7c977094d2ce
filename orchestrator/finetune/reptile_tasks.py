"""Draws the tasks of Reptile: classes of one subset, their images, and the batches that are learnt from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_QUERIES = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Hold the samples of a task at `positions` int64 [n], and their classes `targets` int64 [n] in the task's order.

    No position occurs twice.
    """

    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    num_classes: int

    @classmethod
    def of(cls, members: list[NDArray[np.int64]]) -> Task:
        """Take the positions of each class."""
        return cls(
            positions=np.concatenate(members),
            targets=np.repeat(np.arange(len(members)), [len(found) for found in members]),
            num_classes=len(members),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """Hold what a network is adapted on, and other samples of the same classes that it is then tested on."""

    support: Task
    queries: Task


@dataclass(frozen=True, eq=False)
class TaskPool:
    """Hold the positions of samples by subset and class; every subset has two classes or more."""

    subsets: tuple[tuple[NDArray[np.int64], ...], ...]

    @classmethod
    def of(cls, subsets: NDArray[np.int64], labels: NDArray[np.int64], *, least: int) -> TaskPool:
        """Sort samples by their subsets [n] and labels [n].

        Classes with fewer than `least` samples in a subset are left out of it, and subsets with less than two classes.
        """
        order = np.lexsort((labels, subsets)).astype(np.int64)
        begins = (np.diff(subsets[order]) != 0) | (np.diff(labels[order]) != 0)
        found: dict[int, list[NDArray[np.int64]]] = {}
        for members in np.split(order, np.flatnonzero(begins) + 1):
            if len(members) >= least:
                found.setdefault(int(subsets[members[0]]), []).append(members)
        return cls(tuple(tuple(classes) for classes in found.values() if len(classes) > 1))

    def __len__(self) -> int:
        return len(self.subsets)

    def draw_task(self, ways: int | None, shots: int | None, rng: np.random.Generator) -> Task:
        """Draw a subset, at most `ways` of its classes and at most `shots` samples of each; None takes all."""
        return Task.of([rng.permutation(members)[:shots] for members in self._draw_classes(ways, rng)])

    def draw_episode(self, ways: int | None, shots: int | None, rng: np.random.Generator) -> Episode:
        """Draw a task of at most half of the samples of each class, and at most 15 of the others to test it on.

        Every class must have two samples or more.
        """
        support, queries = [], []
        for members in self._draw_classes(ways, rng):
            shuffled, half = rng.permutation(members), len(members) // 2
            count = half if shots is None else min(shots, half)
            support.append(shuffled[:count])
            queries.append(shuffled[count : count + _MOST_QUERIES])
        return Episode(support=Task.of(support), queries=Task.of(queries))

    def _draw_classes(self, ways: int | None, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        classes = self.subsets[int(rng.integers(len(self.subsets)))]
        return [classes[index] for index in rng.permutation(len(classes))[:ways]]


def draw_batches(
    num_samples: int, batch_size: int, num_batches: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draw batches of different samples out of 0..num_samples: all occur once before any occurs again.

    Rounds of all samples are cut into equal parts of at least `batch_size`; fewer samples than that are one batch.
    """
    batches: list[NDArray[np.int64]] = []
    while len(batches) < num_batches:
        batches += np.array_split(rng.permutation(num_samples), max(1, num_samples // batch_size))
    return batches[:num_batches]
