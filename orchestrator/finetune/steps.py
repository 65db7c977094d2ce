"""Turns samples or a stream into the training steps of one epoch, the same number of them on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import plan_balanced_batches, plan_batches, share
from orchestrator.finetune.contracts import BatchStream, Labels, TrainingSettings
from orchestrator.finetune.distributed import rank, sum_over_ranks, world_size
from orchestrator.finetune.prefix import Prefix, SuffixInputs
from orchestrator.finetune.tasks import first_task
from orchestrator.finetune.views import draw_of, vary


@dataclass(frozen=True, kw_only=True)
class SourcePart:
    """Hold this rank's source samples beside those of a batch: `targets` are class indices [n].

    `scale` turns the sum of their losses into what, averaged over the ranks, is the mean of the global batch.
    """

    inputs: Tensor
    targets: Tensor
    scale: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """Hold this rank's part of one global batch.

    `targets` are class indices [n], probabilities or indicators of labels float32 [n, K], or class indices [n, T] of
    several tasks. `count` is the number of its samples that count; a rank without samples takes part with a blank
    image, so that gradients can be averaged. `scale` turns the sum of its losses into what, averaged over the ranks, is
    the mean loss of the global batch, of `total` samples. `done` is the share of the epoch that is behind the middle of
    the batch. `source` is what is trained on beside it, if anything. The optimizer takes a
    step over `together` batches, of which this is one.
    """

    inputs: Tensor
    targets: Tensor
    count: int
    scale: float
    done: float
    total: int
    source: SourcePart | None = None
    together: int = 1


def steps_of_samples(
    inputs: SuffixInputs,
    labels: Labels,
    prefix: Prefix,
    *,
    batch_size: int,
    epoch: int,
    balanced: bool = False,
    accumulate: int = 1,
) -> Iterator[Step]:
    """Give the steps of an epoch over samples, in the order of (seed, epoch) and varied as the epoch's draw says.

    `labels` are [n], [n, T] of several tasks, or float32 [n, K] where a sample has any number of them. A `balanced`
    epoch has as many samples, of every class of the first task equally many: see `plan_balanced_batches`. `accumulate`
    batches go together, fewer at the end; each is made when its turn comes.
    """
    draw = draw_of(epoch, prefix.settings.augment)
    size = world_size()
    if balanced:
        batches = plan_balanced_batches(first_task(labels), batch_size, prefix.settings.order_seed, epoch, size)
    else:
        batches = plan_batches(len(labels), batch_size, prefix.settings.order_seed, epoch, size)
    total, seen = sum(map(len, batches)), 0
    for number, batch in enumerate(batches):
        mine, done = share(batch, rank(), size), (seen + len(batch) / 2) / total
        seen += len(batch)
        if len(mine):
            step = _step(inputs.take(mine, draw), labels[mine], len(batch), prefix.settings, done=done)
        else:
            step = _blank_step(prefix, len(batch), labels, done=done)
        yield replace(step, together=min(accumulate, len(batches) - number // accumulate * accumulate))


def steps_of_stream(stream: BatchStream, prefix: Prefix, *, epoch: int, accumulate: int = 1) -> Iterator[Step]:
    """Give the steps of an epoch over a stream, until every rank has run out.

    `accumulate` batches go together, fewer at the end: of these the pixels are held, as the stream gives them, on the
    CPU, and each is made a step when its turn comes.

    Raises TrainingError on every rank when the ranks together did not get every sample once.
    """
    batches = _global_batches(stream, epoch, prefix.settings.device)
    seen = taken = 0
    while held := list(islice(batches, accumulate)):
        for batch, total in held:
            done = (seen + total / 2) / max(1, stream.num_samples)
            seen += total
            if batch is None:
                step = _blank_step(prefix, total, stream.no_labels, done=done)
            else:
                inputs = prefix(vary_streamed(batch[0], taken, epoch, prefix.settings))
                step = _step(inputs, batch[1], total, prefix.settings, done=done)
                taken += len(batch[1])
            yield replace(step, together=len(held))
    if seen != stream.num_samples:
        raise TrainingError(
            f"an epoch must bring each of {stream.num_samples} samples once",
            value=seen,
            remedy="Check the stream of training data.",
        )


def _global_batches(
    stream: BatchStream, epoch: int, device: str
) -> Iterator[tuple[tuple[NDArray[np.uint8], Labels] | None, int]]:
    """Give this rank's part of every global batch, None where it has run out, and the samples of all ranks' parts."""
    batches = (batch for batch in stream.epoch(epoch) if len(batch[1]))
    while True:
        batch = next(batches, None)
        total = int(sum_over_ranks(torch.tensor(0 if batch is None else len(batch[1]), device=device)))
        if total == 0:
            return
        yield batch, total


def vary_streamed(pixels: NDArray[np.uint8], taken: int, epoch: int, settings: TrainingSettings) -> NDArray[np.uint8]:
    """Vary a batch of a stream: its samples are known by their running number in this rank's epoch alone.

    `taken` is the number of the first.
    """
    numbers = np.arange(taken, taken + len(pixels), dtype=np.uint64) + np.uint64(rank() << 40)
    # Without a key that stays with a sample there are no fixed views: every epoch draws afresh.
    afresh = settings.augment.model_copy(update={"views": 0})
    return vary(pixels, numbers, epoch, afresh, settings.order_seed)


def _step(inputs: Tensor, labels: Labels, global_count: int, settings: TrainingSettings, *, done: float) -> Step:
    return Step(
        inputs=inputs,
        targets=torch.tensor(labels, device=settings.device),
        count=len(labels),
        scale=world_size() / global_count,
        done=done,
        total=global_count,
    )


def _blank_step(prefix: Prefix, global_count: int, labels: Labels, *, done: float) -> Step:
    """Give the step of a rank without samples, with targets of the kind that `labels` are."""
    return Step(
        inputs=prefix.blank(),
        targets=torch.tensor(np.zeros((1, *labels.shape[1:]), dtype=labels.dtype), device=prefix.settings.device),
        count=0,
        scale=0.0,
        done=done,
        total=global_count,
    )
