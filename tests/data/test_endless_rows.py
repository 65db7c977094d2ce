"""A source is given pass after pass: every row once in each, in an order that can be taken up anywhere."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.data.endless_rows import Window, blocks_of_rank, rows_of_block, rows_of_window, windows

NUM_ROWS = 230


def some_rows(count: int = NUM_ROWS) -> pa.Table:
    """Rows of fragments of unequal sizes, in an order of their own."""
    order = np.random.default_rng(5).permutation(count)
    fragments = np.minimum(order // 30, 5)
    return pa.table({"fragment": fragments.astype(np.int32), "row": order})


def rows_in(parts: list[Window]) -> list[int]:
    given = [pa.concat_tables(part.blocks).column("row").take(pa.array(part.order)).to_pylist() for part in parts]
    return [row for rows in given for row in rows]


def some_draws(blocks: list[pa.Table], count: int, *, first: int = 0, seed: int = 3) -> list[int]:
    """Give the first so many rows."""
    found: list[int] = []
    planned = windows(blocks, first, most_rows=80, seeds=(seed, 0))
    while len(found) < count:
        found += rows_in([next(planned)])
    return found[:count]


def blocks() -> list[pa.Table]:
    return blocks_of_rank(some_rows(), 0, 1, most_rows=10, seed=3)


def test_every_pass_has_every_row_once_in_an_order_of_its_own() -> None:
    rows = some_draws(blocks(), 3 * NUM_ROWS)
    passes = [rows[start : start + NUM_ROWS] for start in range(0, len(rows), NUM_ROWS)]
    assert all(sorted(found) == list(range(NUM_ROWS)) for found in passes)
    assert passes[0] != passes[1] != passes[2]
    assert rows == some_draws(blocks(), 3 * NUM_ROWS) != some_draws(blocks(), 3 * NUM_ROWS, seed=4)


@pytest.mark.parametrize("first", [1, 79, 80, 229, 230, 507])
def test_rows_can_be_taken_up_anywhere(first: int) -> None:
    whole = some_draws(blocks(), 3 * NUM_ROWS)
    assert some_draws(blocks(), 100, first=first) == whole[first : first + 100]


def test_a_window_is_bounded_and_mixes_rows_of_several_fragments() -> None:
    found = list(islice(windows(blocks(), 0, most_rows=80, seeds=(3,)), 6))
    assert max(len(window.blocks) for window in found) <= 8
    # No small rest at the end of a pass, whose rows would all be alike.
    assert min(len(window.blocks) for window in found) >= 7
    assert all(len(set(pa.concat_tables(window.blocks).column("fragment").to_pylist())) > 1 for window in found)
    rows = rows_in(found[:1])
    assert rows != rows_in([Window(blocks=found[0].blocks, order=np.arange(len(rows)))])


def test_small_fragments_are_mixed_as_widely_as_large_ones() -> None:
    # A fragment of sixteen rows and sixty of one.
    rows = pa.table({"fragment": [0] * 16 + list(range(1, 61)), "row": list(range(76))})
    parts = blocks_of_rank(rows, 0, 1, most_rows=16, seed=3)
    (window,) = islice(windows(parts, 0, most_rows=128, seeds=(3,)), 1)
    assert len(window.order) == 76 and len(parts) == 61


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_have_rows_of_their_own_equally_many_but_one_in_blocks_of_one_fragment(world_size: int) -> None:
    shares = [blocks_of_rank(some_rows(), rank, world_size, most_rows=10, seed=3) for rank in range(world_size)]
    counts = [sum(block.num_rows for block in share) for share in shares]
    assert max(counts) - min(counts) <= 1
    rows = [row for share in shares for block in share for row in block.column("row").to_pylist()]
    assert sorted(rows) == list(range(NUM_ROWS))
    assert all(len(set(block.column("fragment").to_pylist())) == 1 for share in shares for block in share)
    assert all(block.num_rows <= 10 for share in shares for block in share)
    # What comes first in the catalogue is not all the first rank's.
    assert len({fragment for block in shares[0] for fragment in block.column("fragment").to_pylist()}) > 6 / world_size


def test_every_rank_has_all_rows_where_there_are_fewer_than_ranks() -> None:
    for rank in range(4):
        (block,) = blocks_of_rank(some_rows(3), rank, 4, most_rows=10, seed=3)
        assert sorted(block.column("row").to_pylist()) == [0, 1, 2]


def test_blocks_are_bounded_by_what_their_pixels_take() -> None:
    sizes = (32, 224, 512, 4096)
    assert [rows_of_window(size) for size in sizes] == [2048, 891, 170, 128]
    assert [rows_of_block(size, is_fine=False) for size in sizes] == [256, 111, 21, 16]
    assert [rows_of_block(size, is_fine=True) for size in sizes] == [32, 16, 16, 16]


def test_a_source_in_the_order_of_its_classes_is_mixed_over_many_of_them() -> None:
    # A hundred classes one after the other, in fragments of a thousand files, as a folder of each is listed.
    rows = pa.table({"fragment": np.arange(40_000) // 1000, "row": np.arange(40_000)})
    most_rows = rows_of_block(224, is_fine=True)
    parts = blocks_of_rank(rows, 0, 1, most_rows=most_rows, seed=3)
    (window,) = islice(windows(parts, 0, most_rows=rows_of_window(224), seeds=(3,)), 1)
    classes = np.array(rows_in([window])) // 400
    assert len(set(classes.tolist())) > 30 and len(set(classes[:32].tolist())) > 15


def test_blocks_lie_in_one_piece_so_that_many_are_cut_as_fast_as_few() -> None:
    rows = pa.table({"fragment": np.arange(50_000) // 1000, "row": np.arange(50_000)})
    parts = blocks_of_rank(rows, 1, 2, most_rows=16, seed=3)
    assert len(parts) > 1500 and all(part.column("row").num_chunks == 1 for part in parts)
