"""Says where the stored activations of every sample are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.activations import ActivationStore, StoredActivations
from orchestrator.errors import DataError
from orchestrator.finetune.contracts import Layout, StoredType

# NumPy has no bfloat16: its bits are kept as integers.
NUMPY_TYPES: Mapping[StoredType, str] = {"fp32": "float32", "bf16": "uint16", "fp16": "float16"}

UNCACHED, NOT_STORED = -1, -2
"""What stands for a shard where a sample's pixels are not cached, and where its split is not stored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationIndex:
    """Say where the stored activations of every sample are; small and picklable.

    `entries` has the names by depth, view and shard. Sample i of the table is row `row_of[i]` of shard
    `shard_of[i]`, both int32 [N]; every view of it is stored where `has_views[i]`, else the image itself alone.
    `computed` and `reused` count entries, `bytes` what they take.
    """

    store: ActivationStore
    layouts: dict[int, Layout]
    dtypes: dict[int, StoredType]
    entries: dict[int, tuple[tuple[str, ...], ...]]
    shard_of: NDArray[np.int32]
    row_of: NDArray[np.int32]
    has_views: NDArray[np.bool_]
    computed: int = 0
    reused: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def depths(self) -> tuple[int, ...]:
        """Give the depths that are stored, the worthiest first."""
        return tuple(self.entries)

    def rows(self, positions: NDArray[np.int64], depth: int) -> StoredActivations:
        """Give the rows at one depth of the cached ones among the samples at `positions`, as CachedSamples does.

        A set with a sample of which not every view is stored has the image itself alone. Raises DataError for a depth
        or a split that is not stored.
        """
        if depth not in self.entries:
            raise DataError("a freeze depth must be stored", value=depth, remedy=f"Stored are {list(self.depths)}.")
        shards = self.shard_of[positions]
        if (shards == NOT_STORED).any():
            raise DataError("only samples for train and val have stored activations", remedy="Ask for those alone.")
        cached = positions[shards != UNCACHED]
        needed, compact = np.unique(self.shard_of[cached], return_inverse=True)
        views = self.entries[depth] if self.has_views[cached].all() else self.entries[depth][:1]
        return StoredActivations(
            store=self.store,
            entries=tuple(tuple(names[shard] for shard in needed.tolist()) for names in views),
            shards=compact.astype(np.int32),
            rows=self.row_of[cached],
            width=math.prod(self.layouts[depth].shape),
            dtype=NUMPY_TYPES[self.dtypes[depth]],
        )
