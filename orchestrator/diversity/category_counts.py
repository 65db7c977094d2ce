"""Counts of categories in each subset, from columns alone: a row for each combination that occurs, and no other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

SUBSET = "subset"
COUNT = "count"
_TEXT = pa.dictionary(pa.int32(), pa.string())


def count_rows(columns: pa.Table, *, use_threads: bool = True) -> pa.Table:
    """Count the rows of each combination of texts, none of them null.

    Gives the same columns, dictionary-encoded, and `count` (int64), in any order: `merge_counts` adds such tables up.
    """
    ones = pa.array(np.ones(columns.num_rows, dtype=np.int64))
    return merge_counts([columns.append_column(COUNT, ones)], use_threads=use_threads)


def merge_counts(parts: Sequence[pa.Table], *, use_threads: bool = True) -> pa.Table:
    """Add up the counts of equal rows in one or more tables that `count_rows` gave; integers are exact in any order.

    Rows are grouped by the numbers of their texts: grouping by the texts themselves is slower.
    """
    names = [name for name in parts[0].column_names if name != COUNT]
    texts = {name: encoded([part.column(name) for part in parts]) for name in names}
    counts = pa.chunked_array([chunk for part in parts for chunk in part.column(COUNT).chunks], pa.int64())
    codes = pa.table({**{name: text.indices for name, text in texts.items()}, COUNT: counts})
    grouped = codes.group_by(names, use_threads=use_threads).aggregate([(COUNT, "sum")])
    columns = {
        name: pa.DictionaryArray.from_arrays(grouped.column(name).combine_chunks(), text.dictionary)
        for name, text in texts.items()
    }
    return pa.table({**columns, COUNT: grouped.column(f"{COUNT}_sum")})


def encoded(columns: Sequence[pa.ChunkedArray]) -> pa.DictionaryArray:
    """Put columns of texts, or of dictionaries of texts, one after the other, as numbers into one dictionary."""
    chunks = [chunk for column in columns for chunk in _encoded(column).chunks]
    array: pa.DictionaryArray = pa.chunked_array(chunks, _TEXT).unify_dictionaries().combine_chunks()
    return array


def _encoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if column.type == _TEXT else column.cast(pa.string()).dictionary_encode()
