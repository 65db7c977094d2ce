"""Orders catalogue rows for a training that takes them pass after pass, in parts of which each fits into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.data.reader import BLOCK_ROWS, blocks_of

# Keeps the division over the ranks apart from the order of the first pass, which the same seed gives.
_SALT = 0x5A17
_WINDOW_BYTES = 128 * 2**20
_WINDOW_BLOCKS = 8
_LEAST_ROWS = 16
# Of files that are read row by row a window has so many times as many blocks: neighbours may be of one class.
_FINER = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Hold blocks that are read together, and the order [n] in which their rows are given, numbered block by block."""

    blocks: tuple[pa.Table, ...]
    order: NDArray[np.int64]


def rows_of_window(image_size: int) -> int:
    """Give the most rows of a window: 2,048, or those whose pixels take 128 MiB, but 128 images at least."""
    most = _WINDOW_BYTES // (3 * image_size * image_size)
    return max(_WINDOW_BLOCKS * _LEAST_ROWS, min(_WINDOW_BLOCKS * BLOCK_ROWS, most))


def rows_of_block(image_size: int, *, is_fine: bool) -> int:
    """Give the most rows of a block: an eighth of a window, or, where it `is_fine`, a 64th, but 16 images at least.

    What reads a row with all those beside it, as of a Parquet row group, wants large blocks.
    """
    coarse = rows_of_window(image_size) // _WINDOW_BLOCKS
    return max(_LEAST_ROWS, coarse // _FINER) if is_fine else coarse


def blocks_of_rank(rows: pa.Table, rank: int, world_size: int, *, most_rows: int, seed: int) -> list[pa.Table]:
    """Give a rank rows of its own, equally many but one, as blocks of one fragment each.

    Which fragments are whose is drawn by the seed, for neighbours may be of one class; no more are divided than there
    are borders. Of fewer rows than ranks each rank has all.
    """
    blocks = blocks_of(rows, most_rows)
    if rows.num_rows < world_size:
        return blocks
    order = np.random.default_rng([seed, _SALT]).permutation(len(blocks))
    # In one piece: a block is taken from all of them otherwise, which is quadratic in the blocks.
    mixed = pa.concat_tables([blocks[index] for index in order]).combine_chunks()
    mine = np.array_split(np.arange(rows.num_rows), world_size)[rank]
    return blocks_of(mixed.slice(int(mine[0]), len(mine)), most_rows)


def windows(blocks: Sequence[pa.Table], first: int, *, most_rows: int, seeds: Sequence[int]) -> Iterator[Window]:
    """Give the windows of pass after pass, without end, from row number `first` on, counted from 0 over all passes.

    Each pass has every row once. Its blocks come in an order seeded by the seeds and the number of the pass; about
    `most_rows` rows are mixed with each other. The same blocks, seeds and number give the same rows.
    """
    sizes = np.array([block.num_rows for block in blocks])
    num_rows = int(sizes.sum())
    num_windows = -(-num_rows // most_rows)
    number, skipped = divmod(first, num_rows)
    for turn in count(number):
        rng = np.random.default_rng([*seeds, turn])
        order = rng.permutation(len(blocks))
        for members in np.array_split(order, num_windows):
            chosen = tuple(blocks[index] for index in members)
            places = rng.permutation(int(sizes[members].sum())).astype(np.int64)
            left, skipped = places[skipped:], max(0, skipped - len(places))
            if len(left):
                yield Window(blocks=chosen, order=left)
