"""What `fine_tune` is given: samples or a stream of them, and how the training is set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Metric = Literal["val_accuracy", "val_loss"]
BatchNormMode = Literal["frozen", "train"]
Precision = Literal["fp32", "bf16"]


class Samples(Protocol):
    """Give decoded samples by position, as often and in any order as wanted."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Give the class index of every sample."""
        ...

    def __len__(self) -> int:
        """Count the samples."""
        ...

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give the pixels [n, S, S, 3] of these samples, in this order."""
        ...


@runtime_checkable
class BatchStream(Protocol):
    """Give this rank's share of an epoch batch by batch, for data that is too large to be held.

    Ranks may have unequal numbers of batches, and a rank none at all.
    """

    @property
    def num_samples(self) -> int:
        """Count the samples of a whole epoch over all ranks."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Iterate over pixels [n, S, S, 3] and class indices [n] of one epoch; the first is 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Say how training is done, beside what is searched.

    `batch_norm: frozen` keeps the statistics of every BatchNorm layer, `train` updates those of the suffix.
    `metric` chooses the epoch that is kept. `activation_bytes` bounds the outputs of the frozen stages that are
    held on the device.
    """

    seed: int
    batch_norm: BatchNormMode
    precision: Precision
    device: str
    metric: Metric
    activation_bytes: int = 2 * 2**30
