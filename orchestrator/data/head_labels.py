"""Labels for a network with a head for each subset: a sample has one for the head of its subset alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator.data.catalogue import SampleTable
from orchestrator.records import TaskClasses


def heads_of_subsets(table: SampleTable, subsets: Sequence[str]) -> tuple[TaskClasses, ...]:
    """Give the heads of a group's subsets in the order of their names, each over the classes that occur in its subset.

    A subset without training samples has none: nothing would teach it. A single head is over the classes of them all.
    """
    taught = [name for name in sorted(subsets) if len(table.where([name], "train"))]
    sources = [[name] for name in taught] if len(taught) > 1 else [list(subsets) for _ in taught]
    return tuple(
        TaskClasses(task=name, classes=list(table.classes(table.where(source))))
        for name, source in zip(taught, sources, strict=True)
    )


def head_labels(table: SampleTable, positions: NDArray[np.int64], heads: Sequence[TaskClasses]) -> NDArray[np.int64]:
    """Give the class indices int64 [n, T] of samples for T heads, -1 for all but that of a sample's subset.

    Where there is one head, every sample is its own: [n].
    """
    labels = table.table.column("label").take(pa.array(positions))
    if len(heads) == 1:
        return _places(labels, heads[0].classes)
    subsets = table.table.column("subset").take(pa.array(positions))
    columns = []
    for head in heads:
        is_own = np.asarray(pc.equal(subsets, head.task), dtype=bool)
        columns.append(np.where(is_own, _places(labels, head.classes), -1))
    return np.stack(columns, axis=1)


def _places(labels: pa.ChunkedArray, classes: Sequence[str]) -> NDArray[np.int64]:
    found = pc.index_in(labels, value_set=pa.array(classes, pa.string()))
    return np.asarray(pc.fill_null(found, -1), dtype=np.int64)


def labels_of_one_head(
    labels: NDArray[np.int64], heads: Sequence[TaskClasses], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Turn labels [n, T] for T heads into class indices int64 [n] over all `classes`; -1 where there is none."""
    found = np.full(len(labels), -1, dtype=np.int64)
    for column, head in zip(labels.T, heads, strict=True):
        places = np.array([classes.index(name) for name in head.classes], dtype=np.int64)
        found[column >= 0] = places[column[column >= 0]]
    return found
