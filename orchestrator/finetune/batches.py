"""Plans which samples form each batch of an epoch, and which of them a rank takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class ClassDraws:
    """Say how an epoch draws from one class: `draws` times from `samples`, of which it shows `shown` different ones."""

    label: int
    samples: int
    draws: int
    shown: int

    @property
    def repeats(self) -> int:
        """Count the draws that show a sample again."""
        return self.draws - self.shown


def plan_batches(
    num_samples: int, batch_size: int, seed: int, epoch: int, world_size: int = 1
) -> list[NDArray[np.int64]]:
    """Cut a permutation seeded by (seed, epoch) into global batches: every position of 0..num_samples once.

    A last batch of fewer than two samples for each rank is merged into the one before: BatchNorm in training
    fails on one. Raises TrainingError without samples.
    """
    _require_samples(num_samples)
    order = np.random.default_rng([seed, epoch]).permutation(num_samples).astype(np.int64)
    return _cut(order, batch_size, world_size)


def plan_balanced_batches(
    labels: NDArray[np.int64], batch_size: int, seed: int, epoch: int, world_size: int = 1
) -> list[NDArray[np.int64]]:
    """Plan global batches of an epoch in which every class occurs equally often, seeded by (seed, epoch).

    An epoch is as long as one of `plan_batches` and has the same batch sizes, so that it costs the same. A class with
    more samples than its share shows others in every epoch, none twice in one; of a class with fewer, every sample is
    repeated equally often, or once more. Classes take turns in an order that is drawn once an epoch: in the epoch, in
    every global batch and in every rank's part of one the counts of two classes that have samples differ by one at
    most (class-aware sampling: Shen, Lin and Huang, "Relay Backpropagation for Effective Learning of Deep Convolutional
    Neural Networks", 2016). Raises TrainingError without samples.
    """
    _require_samples(len(labels))
    rng = np.random.default_rng([seed, epoch])
    _, counts = np.unique(labels, return_counts=True)
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    order = np.empty(len(labels), dtype=np.int64)
    for turn, index in enumerate(rng.permutation(len(classes))):
        places = order[turn :: len(classes)]
        places[:] = _draw(classes[index], len(places), rng)
    return _cut(order, batch_size, world_size)


def count_draws(batches: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]) -> list[ClassDraws]:
    """Count what the batches of an epoch draw from each class that has samples, in the order of the classes."""
    drawn = np.concatenate(batches)
    samples = np.bincount(labels)
    draws, shown = (np.bincount(labels[positions], minlength=len(samples)) for positions in (drawn, np.unique(drawn)))
    return [
        ClassDraws(label=label, samples=int(samples[label]), draws=int(draws[label]), shown=int(shown[label]))
        for label in np.flatnonzero(samples).tolist()
    ]


def share(batch: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """Give a rank its consecutive part of a batch; the parts differ by one sample at most and may be empty."""
    return np.array_split(batch, world_size)[rank]


def _require_samples(num_samples: int) -> None:
    if num_samples < 1:
        raise TrainingError("there must be training samples", value=num_samples, remedy="Check the training split.")


def _cut(order: NDArray[np.int64], batch_size: int, world_size: int) -> list[NDArray[np.int64]]:
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] < 2 * world_size:
        starts.pop()
    return np.split(order, starts[1:])


def _draw(members: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw from members without replacement, and from all of them again when they are used up."""
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count]
