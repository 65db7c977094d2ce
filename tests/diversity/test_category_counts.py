"""Counts of categories are those that occur, whatever the parts that were counted and their order."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diversity.category_counts import COUNT, count_rows, encoded, merge_counts

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["cat", "dog", "é", ""])), max_size=30)
SCHEMA = pa.schema([("subset", pa.string()), ("label", pa.string())])


def table(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.Table.from_pylist([{"subset": subset, "label": label} for subset, label in rows], SCHEMA)


def as_counter(counts: pa.Table) -> Counter[tuple[str, str]]:
    rows = counts.to_pylist()
    found = Counter({(row["subset"], row["label"]): row[COUNT] for row in rows})
    assert len(found) == len(rows)
    return found


@given(ROWS)
def test_only_what_occurs_is_counted(rows: list[tuple[str, str]]) -> None:
    assert as_counter(count_rows(table(rows))) == Counter(rows)


@given(st.lists(ROWS, min_size=1, max_size=5).flatmap(lambda parts: st.tuples(st.just(parts), st.permutations(parts))))
def test_parts_add_up_in_any_order(parts: tuple[list[list[tuple[str, str]]], list[list[tuple[str, str]]]]) -> None:
    in_order, shuffled = (merge_counts([count_rows(table(rows)) for rows in order]) for order in parts)
    assert as_counter(in_order) == as_counter(shuffled) == Counter(row for rows in parts[0] for row in rows)


def test_columns_that_are_dictionaries_already_are_counted_the_same() -> None:
    rows = [("a", "cat"), ("b", "cat"), ("a", "cat"), ("a", "dog")]
    stored = pa.table({name: table(rows).column(name).dictionary_encode() for name in SCHEMA.names})
    assert as_counter(count_rows(stored)) == Counter(rows)


def test_columns_with_other_dictionaries_share_one() -> None:
    array = encoded([pa.chunked_array([["x", "y"], ["z"]]), pa.chunked_array([["y"]])])
    assert array.to_pylist() == ["x", "y", "z", "y"]
    assert sorted(array.dictionary.to_pylist()) == ["x", "y", "z"]
