"""What `fine_tune` is given: samples or a stream of them, and how the training is set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.config import AugmentConfig, BatchNormMode
from orchestrator.finetune.label_counts import LabelCounts

Metric = Literal["val_accuracy", "val_loss"]
Precision = Literal["fp32", "bf16", "fp16"]
StoredType = Literal["fp32", "bf16", "fp16"]
NO_AUGMENTATION = AugmentConfig()
Inputs = Literal["activations", "memory", "pixels"]
MOST_ACTIVATION_BYTES = 2 * 2**30
Labels = NDArray[np.int64] | NDArray[np.float32]
"""Class indices [n], or [n, T] of several tasks; or float32 [n, K], 1 for each of any number of labels, else 0."""


class Samples(Protocol):
    """Give decoded samples by position, as often and in any order as wanted."""

    @property
    def labels(self) -> Labels:
        """Give the class index of every sample, or its labels where it may have any number."""
        ...

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Give a number for every sample that stays with it: its variants are drawn from it."""
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

    Ranks may have unequal numbers of batches, and a rank none at all. Its samples have no keys: variants are drawn
    from the seed, the epoch, the rank and the running number, so that a resume with other ranks draws others.
    """

    @property
    def num_samples(self) -> int:
        """Count the samples of a whole epoch over all ranks."""
        ...

    @property
    def no_labels(self) -> Labels:
        """Give the labels of no sample: [0], [0, T] or float32 [0, K], of the kind that batches have."""
        ...

    def count_labels(self) -> LabelCounts:
        """Count the labels of a whole epoch over all ranks."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        """Iterate over pixels [n, S, S, 3] and the labels of one epoch; the first is 1."""
        ...


@runtime_checkable
class ImageStream(Protocol):
    """Give this rank's share of an epoch batch by batch as a `BatchStream` does, by keys in place of labels.

    Keys stay with their samples, so that an image's views are the same in whatever order it comes.
    """

    @property
    def num_samples(self) -> int:
        """Count the samples of a whole epoch over all ranks."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint64]]]:
        """Iterate over pixels [n, S, S, 3] and keys [n] of one epoch; the first is 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Say how training is done, beside what is searched.

    `batch_norm: frozen` keeps the statistics of every BatchNorm layer, `train` updates those of the suffix, `sync` too:
    where there are several ranks, by the samples of all of them.
    `metric` chooses the epoch that is kept. `activation_bytes` bounds the outputs of the frozen stages that are
    held on the device. `augment` varies training samples; they are varied and ordered by `loader_seed`, by default the
    `seed` of everything else. The suffixes of `compiled_depths` go through torch.compile
    where one process trains alone.
    """

    seed: int
    batch_norm: BatchNormMode
    precision: Precision
    device: str
    metric: Metric
    activation_bytes: int = MOST_ACTIVATION_BYTES
    augment: AugmentConfig = NO_AUGMENTATION
    compiled_depths: frozenset[int] = frozenset()
    loader_seed: int | None = None

    @property
    def order_seed(self) -> int:
        """Give the seed that training samples are ordered and varied by."""
        return self.seed if self.loader_seed is None else self.loader_seed


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Say how one sample's output lies in memory: its shape, and whether channels come last.

    A suffix that got another layout than the prefix gave would run slower and round differently.
    """

    shape: tuple[int, ...]
    channels_last: bool

    @classmethod
    def of(cls, outputs: Tensor) -> Layout:
        """Read the layout off a batch of outputs."""
        channels_last = (
            outputs.dim() == 4
            and not outputs.is_contiguous()
            and outputs.is_contiguous(memory_format=torch.channels_last)
        )
        return cls(shape=tuple(outputs.shape[1:]), channels_last=channels_last)

    def pack(self, outputs: Tensor) -> Tensor:
        """Turn outputs [n, ...] into rows [n, d]."""
        return (outputs.permute(0, 2, 3, 1) if self.channels_last else outputs).flatten(1)

    def unpack(self, rows: Tensor) -> Tensor:
        """Turn rows [n, d] into outputs [n, ...]."""
        if not self.channels_last:
            return rows.reshape(-1, *self.shape)
        channels, height, width = self.shape
        return rows.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


class StoredRows(Protocol):
    """Give the stored outputs of the frozen stages, by position and draw."""

    def take(self, positions: NDArray[np.int64], draw: int) -> NDArray[Any]:
        """Give rows [n, d] as they are stored: float32, float16, or the bits of bfloat16 as uint16."""
        ...

    def check(self) -> None:
        """Raise DataError, StorageError or OSError when a row could not be taken."""
        ...


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Hold the stored outputs of the first `depth` stages for the training and the validation samples."""

    depth: int
    layout: Layout
    dtype: StoredType
    train: StoredRows
    validation: StoredRows
