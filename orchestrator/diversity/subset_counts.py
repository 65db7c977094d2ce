"""The counts of every subset one after the other, for measures that are taken of all subsets at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator.diversity.category_counts import COUNT, SUBSET, merge_counts
from orchestrator.errors import DataError


@dataclass(frozen=True, eq=False)
class CountRows:
    """Hold the positive counts [m] of s subsets, one subset after the other: those of subset i from `starts[i]` on.

    Every subset has one or more. Raises DataError for a count that is not positive.
    """

    counts: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.counts) and self.counts.min() <= 0:
            raise DataError("counts must be positive", value=self.counts.min())

    def sums(self, values: NDArray[np.number]) -> NDArray[np.float64]:
        """Add up values [m] by subset: [s]."""
        if not len(self.starts):
            return np.zeros(0)
        sums: NDArray[np.float64] = np.add.reduceat(values.astype(np.float64), self.starts)
        return sums

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Repeat each subset's value [s] for each of its counts: [m]."""
        repeated: NDArray[np.float64] = np.repeat(values, np.diff(self.starts, append=len(self.counts)))
        return repeated

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum up the counts of every subset: [s]."""
        return self.sums(self.counts)

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Count the categories that occur in every subset: [s]."""
        return np.diff(self.starts, append=len(self.counts)).astype(np.float64)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Divide the counts [m] by their subset's total."""
        return self.counts / self.spread(self.totals)


@dataclass(frozen=True, kw_only=True, eq=False)
class SubsetCounts:
    """Hold the counts of every subset one after the other, sorted by subset and then by category.

    `subsets` are s distinct names and `rows` their counts; `categories` [m] say of what, where one column was counted,
    and are empty for several.
    """

    subsets: list[str]
    rows: CountRows
    categories: list[str]

    @classmethod
    def of(cls, table: pa.Table, columns: Sequence[str]) -> SubsetCounts:
        """Take the counts of one column's categories, or of several columns' combinations, from merged counts."""
        merged = merge_counts([table.select([SUBSET, *columns, COUNT])])
        ranks = [_ranks(merged.column(name)) for name in (SUBSET, *columns)]
        # The last key sorts first.
        order = np.lexsort(ranks[::-1])
        starts = np.flatnonzero(np.diff(ranks[0][order], prepend=-1)).astype(np.int64)
        return cls(
            subsets=_texts(merged.column(SUBSET), order[starts]),
            rows=CountRows(np.asarray(merged.column(COUNT), dtype=np.int64)[order], starts),
            categories=_texts(merged.column(columns[0]), order) if len(columns) == 1 else [],
        )

    @property
    def num_categories(self) -> int:
        """Count the categories that occur in any subset."""
        return len(set(self.categories))

    def by_subset(self) -> list[dict[str, int]]:
        """Give the counts of every subset by category, in the order of the subsets."""
        counts, starts = self.rows.counts.tolist(), self.rows.starts.tolist()
        return [
            dict(zip(self.categories[start:end], counts[start:end], strict=True))
            for start, end in zip(starts, [*starts[1:], len(counts)], strict=False)
        ]


def _ranks(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Give the place of each row's text among all texts in ascending order."""
    array = column.combine_chunks()
    ranks = np.empty(len(array.dictionary), dtype=np.int64)
    ranks[np.asarray(pc.sort_indices(array.dictionary))] = np.arange(len(ranks))
    found: NDArray[np.int64] = ranks[np.asarray(array.indices)]
    return found


def _texts(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> list[str]:
    array = column.combine_chunks()
    texts = np.array(array.dictionary.to_pylist(), dtype=object)
    found: list[str] = texts[np.asarray(array.indices)[rows]].tolist()
    return found
