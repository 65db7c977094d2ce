"""Gives training code its samples: class indices, and pixels by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.data.catalogue import SampleTable
from orchestrator.data.identity import sample_keys
from orchestrator.data.pixels import PixelCache


@dataclass(frozen=True, eq=False)
class CachedSamples:
    """Hold the class indices int64 [n] and the keys uint64 [n] of samples, beside their cached pixels.

    Of several tasks the class indices are [n, T], -1 where a sample has no label for one. Where a sample has any number
    of labels, `labels` are float32 [n, K]: 1 for each that it has, else 0. Small and picklable.
    """

    labels: NDArray[np.int64] | NDArray[np.float32]
    keys: NDArray[np.uint64]
    pixels: PixelCache

    @classmethod
    def of(
        cls,
        samples: SampleTable,
        positions: NDArray[np.int64],
        pixels_uri: str | None,
        classes: Sequence[str],
    ) -> CachedSamples:
        """Take the cached ones among the samples at `positions`, in that order; none without a cache.

        Raises DataError when one has a label that is not in `classes`.
        """
        pixel_rows = np.asarray(samples.table.column("pixel_row").take(pa.array(positions)), dtype=np.int32)
        is_cached = pixel_rows >= 0 if pixels_uri is not None else np.zeros(len(positions), dtype=bool)
        cached = positions[is_cached]
        shards = np.asarray(samples.table.column("fragment").take(pa.array(cached)), dtype=np.int32)
        return cls(
            labels=samples.targets(cached, classes),
            keys=sample_keys(samples.table.column("id").take(pa.array(cached)).to_pylist()),
            pixels=PixelCache.open(pixels_uri or "", shards, pixel_rows[is_cached]),
        )

    @classmethod
    def joined(cls, *parts: CachedSamples) -> CachedSamples:
        """Put samples of one cache one after the other."""
        return cls(
            labels=np.concatenate([part.labels for part in parts]),
            keys=np.concatenate([part.keys for part in parts]),
            pixels=PixelCache.open(
                parts[0].pixels.uri,
                np.concatenate([part.pixels.shards for part in parts]),
                np.concatenate([part.pixels.rows for part in parts]),
            ),
        )

    def select(self, positions: NDArray[np.int64]) -> CachedSamples:
        """Give the samples at `positions`, in that order."""
        pixels = PixelCache.open(self.pixels.uri, self.pixels.shards[positions], self.pixels.rows[positions])
        return CachedSamples(labels=self.labels[positions], keys=self.keys[positions], pixels=pixels)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy the pixels at `positions`, in that order and with repeats: uint8 [n, size, size, 3]."""
        return self.pixels.take(positions)
