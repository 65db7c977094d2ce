"""Streams decoded samples to the ranks of Ray Train: each rank's share of an epoch, and images without their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train
from numpy.typing import NDArray

from orchestrator.data.identity import sample_keys
from orchestrator.data.reader import PixelReader

STREAM = "train"
"""The name under which Ray Train knows the data set that is streamed."""

_BUFFERED_BATCHES = 8


def shard_batches(batch_size: int, epoch: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Iterate over this rank's share of an epoch, column by column; order is mixed within a buffer."""
    shard = ray.train.get_dataset_shard(STREAM)
    yield from shard.iter_batches(
        batch_size=batch_size,
        batch_format="numpy",
        local_shuffle_buffer_size=batch_size * _BUFFERED_BATCHES,
        local_shuffle_seed=epoch,
    )


@dataclass(frozen=True)
class DecodeImages:
    """Turn a block of catalogue rows into decoded pixels and the keys of their samples; labels are not looked at."""

    reader: PixelReader

    def __call__(self, block: pa.Table) -> dict[str, NDArray[Any]]:
        """Give the columns `pixels` [n, S, S, 3] and `key` [n]."""
        return {"pixels": self.reader.read(block), "key": sample_keys(block.column("id").to_pylist())}


@dataclass(frozen=True, kw_only=True)
class ImageShards:
    """Give this rank's share of a stream of images in batches of `batch_size`; a resume does not keep their order."""

    num_samples: int
    batch_size: int

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint64]]]:
        """Iterate over pixels and keys of one epoch."""
        for batch in shard_batches(self.batch_size, epoch):
            yield batch["pixels"], batch["key"]
