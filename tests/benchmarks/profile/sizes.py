"""Says how large the measurements are, and where they find and put things."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

IMAGE_SIZE = 96
WIDTH = 0.35


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Hold the sizes of all measurements; `max_images` is of a shard of PACS, None takes all."""

    repeats: int = 3
    max_images: int | None = None
    batch_sizes: tuple[int, ...] = (32, 64, 128)
    tuning_images: int = 1024
    label_shards: int = 100
    rows_per_shard: int = 100_000
    label_subsets: int = 100_000
    copies: int = 10
    vendi_images: int = 5000
    vendi_dimensions: int = 512

    @classmethod
    def tiny(cls) -> Sizes:
        """Give sizes that try every line in minutes and measure nothing."""
        return cls(
            repeats=1,
            max_images=20,
            batch_sizes=(32,),
            tuning_images=64,
            label_shards=4,
            rows_per_shard=5000,
            label_subsets=500,
            copies=2,
            vendi_images=200,
            vendi_dimensions=32,
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Hold the paths and the sizes."""

    data: Path
    weights: Path
    scratch: Path
    sizes: Sizes

    @property
    def cores(self) -> int:
        """Count the cores that this process may use."""
        return len(os.sched_getaffinity(0))

    def fresh(self, name: str) -> Path:
        """Give a path that nothing has used yet."""
        return self.scratch / f"{name}-{uuid4().hex[:8]}"
