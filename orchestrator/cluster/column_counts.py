"""Counts labels and attributes straight from the shards, in tasks that read these columns and nothing else.

What tasks import stays light: no torch, whose import would take longer than counting ten million rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import ray
from pyarrow import compute as pc

from orchestrator.cluster.failures import translate, translated
from orchestrator.cluster.watchdog import Watchdog, gather
from orchestrator.config import DataConfig
from orchestrator.data.fragments import Fragment, positions_in
from orchestrator.data.sources import list_fragments
from orchestrator.data.text_columns import LABEL, SUBSET, attribute_name, read_columns
from orchestrator.diversity.category_counts import count_rows, encoded, merge_counts
from orchestrator.errors import DataError

T = TypeVar("T")
Share = TypeVar("Share")

ROW_COLUMNS = [SUBSET, "fragment", "file", "row"]

# A task that counts fewer takes longer to start than to count.
_ROWS_PER_TASK = 250_000
_TASKS_PER_CPU = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnCounts:
    """Hold counts by subset and label, and by subset and attributes where there are any; and the rows left out."""

    labels: pa.Table
    attributes: pa.Table | None
    bad_rows: Counter[str]


def count_columns(data: DataConfig, attributes: Sequence[str], *, stall_timeout_s: float) -> ColumnCounts:
    """Count the labels and attributes of every subset of the input, whatever split a row belongs to.

    Rows without a label or a subset are left out and counted by their reason. Raises what listing the input raises,
    DataError when no row is left.
    """
    fragments = list_fragments(data, required=(LABEL, SUBSET))
    shares = _shares(fragments, [fragment.num_rows for fragment in fragments])
    parts = _run(_count_share, [(share, data, tuple(attributes)) for share in shares], stall_timeout_s)
    labels = merge_counts([part.labels for part in parts])
    bad_rows = sum((part.bad_rows for part in parts), Counter[str]())
    if labels.num_rows == 0:
        raise DataError(
            "the data must hold a row with a label and a subset",
            value=f"{bad_rows.total()} bad rows in {data.uri}",
            remedy=f"The most frequent reason: {bad_rows.most_common(1)[0][0]}.",
        )
    tables = [part.attributes for part in parts if part.attributes is not None]
    return ColumnCounts(labels=labels, attributes=merge_counts(tables) if tables else None, bad_rows=bad_rows)


def count_attributes(
    rows: pa.Table,
    fragments: Sequence[Fragment],
    data: DataConfig,
    attributes: Sequence[str],
    *,
    stall_timeout_s: float,
) -> pa.Table:
    """Count the attributes of catalogue rows (ROW_COLUMNS) by subset, reading them from the files of the rows.

    Raises DataError when a file cannot be read any more.
    """
    by_fragment = rows.select(ROW_COLUMNS).sort_by("fragment")
    numbers = np.asarray(by_fragment.column("fragment"))
    starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    lengths = np.diff(starts, append=len(numbers)).tolist()
    pieces = [
        (fragments[int(numbers[start])], by_fragment.slice(start, length))
        for start, length in zip(starts, lengths, strict=True)
    ]
    shares = _shares(pieces, lengths)
    return merge_counts(
        _run(_count_catalogued, [(share, data, tuple(attributes)) for share in shares], stall_timeout_s)
    )


def _count_share(fragments: Sequence[Fragment], data: DataConfig, attributes: Sequence[str]) -> ColumnCounts:
    labels, others, bad_rows = [], [], Counter[str]()
    for fragment in fragments:
        try:
            columns = read_columns(fragment, data, attributes)
        except DataError as error:
            bad_rows[str(error)] += fragment.num_rows
            continue
        usable, bad = _usable(columns)
        bad_rows += bad
        labels.append(_counted(usable.select([SUBSET, LABEL])))
        if attributes:
            others.append(_counted(usable.drop_columns([LABEL])))
    return ColumnCounts(
        labels=_merged(labels, [LABEL]),
        attributes=_merged(others, _names(attributes)) if attributes else None,
        bad_rows=bad_rows,
    )


def _count_catalogued(
    pieces: Sequence[tuple[Fragment, pa.Table]], data: DataConfig, attributes: Sequence[str]
) -> pa.Table:
    parts = []
    for fragment, rows in pieces:
        columns = read_columns(fragment, data, attributes).drop_columns([SUBSET, LABEL])
        chosen = columns.take(pa.array(positions_in(fragment, rows), pa.int64()))
        parts.append(_counted(chosen.add_column(0, SUBSET, rows.column(SUBSET))))
    return _merged(parts, _names(attributes))


def _usable(columns: pa.Table) -> tuple[pa.Table, Counter[str]]:
    """Give the rows that have a label and a subset, as the catalogue reads them, and count the others by reason."""
    bad: Counter[str] = Counter()
    for name in (LABEL, SUBSET):
        column = encoded([columns.column(name)])
        texts = pc.utf8_trim_whitespace(column.dictionary)
        is_present = pc.fill_null(pc.not_equal(texts, "").take(column.indices), False)
        if not texts.equals(column.dictionary):
            column = texts.take(column.indices)
        columns = columns.set_column(columns.column_names.index(name), name, column)
        if num_missing := len(column) - (pc.sum(is_present).as_py() or 0):
            bad[f"the {name} is missing"] += num_missing
            columns = columns.filter(is_present)
    return columns, bad


def _counted(columns: pa.Table) -> pa.Table:
    """Count rows; an attribute that is null counts as an empty text."""
    for index, name in enumerate(columns.column_names):
        column = columns.column(name)
        if column.null_count:
            columns = columns.set_column(index, name, pc.fill_null(column.cast(pa.string()), ""))
    return count_rows(columns, use_threads=False)


def _names(attributes: Sequence[str]) -> list[str]:
    return [attribute_name(index) for index in range(len(attributes))]


def _merged(parts: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """Add up counts by subset and these columns; where there are none, nothing was counted."""
    columns = pa.table({name: pa.array([], pa.string()) for name in (SUBSET, *names)})
    return merge_counts([count_rows(columns, use_threads=False), *parts], use_threads=False)


def _shares(pieces: Sequence[Share], rows: Sequence[int]) -> list[tuple[Share, ...]]:
    """Cut pieces into runs of about as many rows each, for every CPU to have some but none too few."""
    most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _TASKS_PER_CPU
    num_tasks = max(1, min(most, math.ceil(sum(rows) / _ROWS_PER_TASK)))
    middles = np.cumsum(rows) - np.asarray(rows) / 2
    task_of = np.minimum(num_tasks - 1, (middles * num_tasks / max(1, sum(rows))).astype(int))
    borders = np.flatnonzero(np.diff(task_of)) + 1
    return [tuple(pieces[index] for index in run) for run in np.split(np.arange(len(pieces)), borders)]


def _run(task: Callable[..., T], arguments: Sequence[tuple[object, ...]], stall_timeout_s: float) -> list[T]:
    """Run a task for each tuple of arguments, and give the results in their order."""
    remote = ray.remote(num_cpus=1)(task)
    what = "counting columns"
    results: dict[int, T] = {}
    with translated(what), Watchdog(what, wanted={"CPU": 1}, stall_timeout_s=stall_timeout_s) as watchdog:
        for index, outcome in gather([partial(remote.remote, *found) for found in arguments], watchdog=watchdog):
            if isinstance(outcome, Exception):
                raise translate(outcome, what)
            results[index] = outcome
    return [results[index] for index in sorted(results)]
