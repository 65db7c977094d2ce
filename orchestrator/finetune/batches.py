"""Plans which samples form each batch of an epoch, and which of them a rank takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import TrainingError


def plan_batches(
    num_samples: int, batch_size: int, seed: int, epoch: int, world_size: int = 1
) -> list[NDArray[np.int64]]:
    """Cut a permutation seeded by (seed, epoch) into global batches: every position of 0..num_samples once.

    A last batch of fewer than two samples for each rank is merged into the one before: BatchNorm in training
    fails on one. Raises TrainingError without samples.
    """
    if num_samples < 1:
        raise TrainingError("there must be training samples", value=num_samples, remedy="Check the training split.")
    order = np.random.default_rng([seed, epoch]).permutation(num_samples).astype(np.int64)
    starts = list(range(0, num_samples, batch_size))
    if len(starts) > 1 and num_samples - starts[-1] < 2 * world_size:
        starts.pop()
    return np.split(order, starts[1:])


def share(batch: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """Give a rank its consecutive part of a batch; the parts differ by one sample at most and may be empty."""
    return np.array_split(batch, world_size)[rank]
