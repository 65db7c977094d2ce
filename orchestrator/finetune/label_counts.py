"""How many training samples have each label: what losses are weighed by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Self

import numpy as np
from numpy.typing import NDArray

NO_LABEL = -1
"""Stands in labels [n, T] where a sample has none for a task."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelCounts:
    """Hold the number of samples, and for each task how many of them have each of its labels [K_t].

    Labels after the last that occurs may be left out.
    """

    num_samples: int
    by_task: tuple[Counts, ...]

    @classmethod
    def of(cls, labels: NDArray[np.int64] | NDArray[np.float32]) -> Self:
        """Count class indices [n] or [n, T], or indicators float32 [n, K] of labels."""
        if labels.dtype == np.float32:
            return cls(num_samples=len(labels), by_task=(labels.sum(axis=0, dtype=np.float64).astype(np.int64),))
        columns = [labels] if labels.ndim == 1 else labels.T
        return cls(num_samples=len(labels), by_task=tuple(_count(column) for column in columns))

    @classmethod
    def added(cls, parts: Iterable[LabelCounts]) -> Self:
        """Add up what was counted in parts, of which there is at least one."""
        found = list(parts)
        tasks = zip(*(part.by_task for part in found), strict=True)
        return cls(num_samples=sum(part.num_samples for part in found), by_task=tuple(_sum(counts) for counts in tasks))


def _count(indices: NDArray[np.number]) -> Counts:
    return np.bincount(indices[indices != NO_LABEL].astype(np.int64))


def _sum(counts: Iterable[Counts]) -> Counts:
    return np.array([sum(column) for column in zip_longest(*counts, fillvalue=0)], dtype=np.int64)
