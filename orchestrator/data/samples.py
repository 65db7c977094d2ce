"""Gives training code its samples: class indices, and pixels by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.data.catalogue import SampleTable
from orchestrator.data.pixels import PixelCache


@dataclass(frozen=True, eq=False)
class CachedSamples:
    """Hold the class indices of samples, int64 [n], beside their cached pixels; small and picklable."""

    labels: NDArray[np.int64]
    pixels: PixelCache

    @classmethod
    def of(
        cls, samples: SampleTable, positions: NDArray[np.int64], pixels_uri: str | None, classes: Sequence[str]
    ) -> CachedSamples:
        """Take the cached ones among the samples at `positions`, in that order; none without a cache.

        Raises DataError when one has a label that is not in `classes`.
        """
        pixel_rows = np.asarray(samples.table.column("pixel_row").take(pa.array(positions)), dtype=np.int32)
        is_cached = pixel_rows >= 0 if pixels_uri is not None else np.zeros(len(positions), dtype=bool)
        cached = positions[is_cached]
        shards = np.asarray(samples.table.column("fragment").take(pa.array(cached)), dtype=np.int32)
        return cls(
            labels=samples.class_indices(cached, classes),
            pixels=PixelCache.open(pixels_uri or "", shards, pixel_rows[is_cached]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy the pixels at `positions`, in that order and with repeats: uint8 [n, size, size, 3]."""
        return self.pixels.take(positions)
