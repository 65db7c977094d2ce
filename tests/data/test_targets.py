"""What samples are learnt by is the same whether the catalogue is asked as a whole or block by block."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.data.catalogue import SampleTable
from orchestrator.data.multi_label import UNIT_SEPARATOR
from orchestrator.data.targets import Targets
from orchestrator.errors import DataError
from orchestrator.records import TaskClasses

CLASSES = ("cat", "cow", "dog")
TASKS = (
    TaskClasses(task="animal", classes=list(CLASSES)),
    TaskClasses(task="coat", classes=["hard", "soft"]),
    TaskClasses(task="size", classes=["large", "small"]),
)
HEADS = (TaskClasses(task="north", classes=["cat", "cow"]), TaskClasses(task="south", classes=["cow", "dog"]))


def rows() -> pa.Table:
    return pa.table(
        {
            "subset": ["north", "south", "north", "south", "north"],
            "label": ["cat", "dog", "cow", "cow", "cat"],
            "tasks": pa.array(
                [["soft", "large"], [None, "small"], ["hard", None], [None, None], ["soft", "small"]],
                pa.list_(pa.string()),
            ),
        }
    )


def label_sets() -> pa.Table:
    return pa.table({"label": ["cat", "", UNIT_SEPARATOR.join(["cat", "dog"]), "cow", "dog"]})


KINDS = {
    "one class": (Targets(classes=CLASSES), rows(), [0, 2, 1, 1, 0]),
    "several tasks": (
        Targets(classes=CLASSES, tasks=TASKS),
        rows(),
        [[0, 1, 0], [2, -1, 1], [1, 0, -1], [1, -1, -1], [0, 1, 1]],
    ),
    "heads of subsets": (
        Targets(classes=CLASSES, tasks=HEADS, heads="subset"),
        rows(),
        [[0, -1], [-1, 1], [1, -1], [-1, 0], [0, -1]],
    ),
    "any number of labels": (
        Targets(classes=CLASSES, is_multi_label=True),
        label_sets(),
        [[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_have_the_targets_of_the_whole(kind: str) -> None:
    targets, table, expected = KINDS[kind]
    found = targets.of_rows(table)
    assert found.tolist() == expected
    blocks = [targets.of_rows(table.slice(start, 2)) for start in (0, 2, 4)]
    assert {block.dtype for block in blocks} == {found.dtype}
    np.testing.assert_array_equal(np.concatenate(blocks), found)
    some = targets.of(SampleTable(table, multi_label=targets.is_multi_label), np.array([3, 0]))
    np.testing.assert_array_equal(some, found[[3, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_have_targets_of_the_same_kind(kind: str) -> None:
    targets, table, expected = KINDS[kind]
    nothing = targets.of_rows(table.slice(0, 0))
    assert (nothing.shape, nothing.dtype) == ((0, *np.shape(expected)[1:]), targets.of_rows(table).dtype)


def test_a_label_that_is_no_class_is_an_error() -> None:
    with pytest.raises(DataError, match="every label must be one of the classes, got dog"):
        Targets(classes=("cat", "cow")).of_rows(rows())
