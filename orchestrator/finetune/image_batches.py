"""Gives the images of an epoch in global batches, from samples or a stream, the same number of them on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.finetune.batches import plan_batches, share
from orchestrator.finetune.contracts import ImageStream, Samples, TrainingSettings
from orchestrator.finetune.distributed import rank, world_size
from orchestrator.finetune.steps import global_batches, require_all_seen


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Hold this rank's part of a global batch of `total` images: pixels uint8 [n, S, S, 3] and keys uint64 [n].

    Of a stream n is 0 where the rank has run out.
    """

    pixels: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    total: int


def count_images(images: Samples | ImageStream) -> int:
    """Count the images of an epoch over all ranks."""
    return images.num_samples if isinstance(images, ImageStream) else len(images)


def image_batches(
    images: Samples | ImageStream, *, image_size: int, batch_size: int, epoch: int, settings: TrainingSettings
) -> Iterator[ImageBatch]:
    """Give this rank's parts of the global batches of an epoch: each image once over all batches and ranks.

    Samples come in the order of (seed, epoch) in batches of `batch_size`, a stream as it brings them. No global batch
    has fewer than two images for each rank where there are as many: BatchNorm in training fails on one.

    Raises TrainingError without samples; of a stream on every rank, and before the last batch, when the ranks together
    did not get as many images as there are.
    """
    if isinstance(images, ImageStream):
        parts = _parts_of_stream(images, epoch, image_size, settings.device)
        return _joined_where_small(parts, least=2 * world_size())
    return _parts_of_samples(images, batch_size, epoch, settings.order_seed)


def blank_image(image_size: int) -> ImageBatch:
    """Give one black image, which is none of those that are counted."""
    pixels = np.zeros((1, image_size, image_size, 3), dtype=np.uint8)
    return ImageBatch(pixels=pixels, keys=np.zeros(1, dtype=np.uint64), total=0)


def _parts_of_samples(samples: Samples, batch_size: int, epoch: int, seed: int) -> Iterator[ImageBatch]:
    for batch in plan_batches(len(samples), batch_size, seed, epoch, world_size()):
        mine = share(batch, rank(), world_size())
        yield ImageBatch(pixels=samples.take(mine), keys=samples.keys[mine], total=len(batch))


def _parts_of_stream(stream: ImageStream, epoch: int, image_size: int, device: str) -> Iterator[ImageBatch]:
    nothing = np.zeros((0, image_size, image_size, 3), dtype=np.uint8), np.zeros(0, dtype=np.uint64)
    seen = 0
    for batch, total in global_batches(stream.epoch(epoch), device):
        pixels, keys = nothing if batch is None else batch
        seen += total
        yield ImageBatch(pixels=pixels, keys=keys, total=total)
    require_all_seen(seen, stream.num_samples)


def _joined_where_small(batches: Iterator[ImageBatch], least: int) -> Iterator[ImageBatch]:
    """Join global batches of fewer than `least` images to the next, and those that are left over to the last.

    All ranks know how many images a global batch has, and so join the same ones.
    """
    ready: ImageBatch | None = None
    small: ImageBatch | None = None
    for batch in batches:
        small = batch if small is None else _joined(small, batch)
        if small.total >= least:
            if ready is not None:
                yield ready
            ready, small = small, None
    if small is not None:
        ready = small if ready is None else _joined(ready, small)
    if ready is not None:
        yield ready


def _joined(one: ImageBatch, other: ImageBatch) -> ImageBatch:
    return ImageBatch(
        pixels=np.concatenate([one.pixels, other.pixels]),
        keys=np.concatenate([one.keys, other.keys]),
        total=one.total + other.total,
    )
