"""Says how large the measurements are, and what every side of a comparison is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 96
WIDTH = 0.35
NUM_STAGES = 6
BATCH_SIZE = 32
# Photo has 1,670 images: these leave 1,286 to train on and 384 to validate; searches test nothing.
SHARE_OF_VALIDATION = 0.22
SHARE_OF_TEST = 0.0


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Hold the sizes of all measurements.

    `peer_trivial_trials` is smaller than `trivial_trials` because the peer needs seconds for each; both are divided
    by their number. `reference_trials` is the length of the search whose best accuracy is the target; those that race
    for it may try `racing_trials` and take `limit_s`. `cache_trials` are those that the cost rule expects. `within` is
    how near to the reference's best accuracy counts as reached.
    """

    repeats: int = 3
    seeds: tuple[int, ...] = (0, 1, 2)
    warm_start_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    fixed_trials: int = 5
    reference_trials: int = 60
    racing_trials: int = 300
    warm_start_trials: int = 20
    trivial_trials: int = 100
    peer_trivial_trials: int = 3
    trivial_images: int = 128
    epochs: tuple[int, ...] = (4, 8, 12)
    heads: int = 32
    head_epochs: int = 20
    cache_trials: int = 60
    cache_epochs: int = 3
    cache_repeats: int = 5
    learning_rates: tuple[float, float] = (1e-4, 1e-2)
    within: float = 0.005
    limit_s: float = 300.0
    max_images: int | None = None

    @classmethod
    def tiny(cls) -> Protocol:
        """Give sizes that try every line in minutes and measure nothing."""
        return cls(
            repeats=1,
            seeds=(0,),
            warm_start_seeds=(0,),
            fixed_trials=2,
            reference_trials=2,
            racing_trials=2,
            warm_start_trials=2,
            trivial_trials=3,
            peer_trivial_trials=2,
            trivial_images=64,
            epochs=(1,),
            heads=4,
            head_epochs=2,
            cache_epochs=1,
            cache_repeats=1,
            within=1.0,
            limit_s=120.0,
            max_images=200,
        )


@dataclass(frozen=True, kw_only=True)
class PhotoTask:
    """Say where a task's decoded pixels and labels lie, in the files that every peer maps into memory.

    They are taken from the catalogue: the same images, decoded the same way, in the same splits.
    """

    directory: Path
    weights: Path
    num_classes: int
    threads: int

    def pixels(self, split: str) -> NDArray[np.uint8]:
        """Map the pixels [n, S, S, 3] of a split."""
        mapped: NDArray[np.uint8] = np.load(self.directory / f"{split}-pixels.npy", mmap_mode="r")
        return mapped

    def labels(self, split: str) -> NDArray[np.int64]:
        """Read the class indices [n] of a split."""
        labels: NDArray[np.int64] = np.load(self.directory / f"{split}-labels.npy")
        return labels
