"""Takes some of each subset's samples: uniform, the same in every sharding, and the same when others come or go."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator.data.identity import stable_fraction


def lowest_hashes(table: pa.Table, positions: NDArray[np.int64], most: int, *, seed: int) -> NDArray[np.int64]:
    """Keep at most `most` of each subset's positions [n] in a table: those whose identity hashes lowest, in order."""
    chosen = table.select(["id", "subset"]).take(pa.array(positions))
    column = chosen.column("subset")
    subsets = np.asarray(pc.index_in(column, value_set=pc.unique(column)), dtype=np.int64)
    sizes = np.bincount(subsets)
    is_cut = sizes[subsets] > most
    hashes = np.zeros(len(positions))
    hashes[is_cut] = [
        stable_fraction(identity, seed) for identity in chosen.column("id").filter(pa.array(is_cut)).to_pylist()
    ]
    order = np.lexsort((hashes, subsets))
    places = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept: NDArray[np.int64] = positions[np.sort(order[places < most])]
    return kept
