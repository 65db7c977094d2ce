"""Global batches of images, from samples or a stream: each image once, and never too few for BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product

import numpy as np
import pytest
from finetune_examples import ImageListStream, some_samples, some_settings

from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import plan_batches
from orchestrator.finetune.contracts import ImageStream, Samples
from orchestrator.finetune.image_batches import ImageBatch, count_images, image_batches

LEAST = 2
SAMPLES = some_samples(40)


def batches_of(images: Samples | ImageStream, *, epoch: int = 1, batch_size: int = 8) -> list[ImageBatch]:
    settings = some_settings()
    return list(image_batches(images, image_size=16, batch_size=batch_size, epoch=epoch, settings=settings))


def a_stream(sizes: Sequence[int], *, num_samples: int | None = None) -> ImageListStream:
    positions = [list(range(sum(sizes[:index]), sum(sizes[: index + 1]))) for index in range(len(sizes))]
    return ImageListStream(SAMPLES, positions, sum(sizes) if num_samples is None else num_samples)


def keys_of(batches: Sequence[ImageBatch]) -> list[list[int]]:
    return [batch.keys.tolist() for batch in batches]


def test_samples_come_in_the_order_of_seed_and_epoch() -> None:
    found = batches_of(SAMPLES, epoch=3, batch_size=16)
    planned = plan_batches(len(SAMPLES), 16, some_settings().order_seed, 3)
    assert keys_of(found) == [batch.tolist() for batch in planned]
    assert [batch.total for batch in found] == [16, 16, 8]
    assert count_images(SAMPLES) == 40


def test_a_stream_comes_as_it_is_where_no_batch_is_small() -> None:
    found = batches_of(a_stream([8, 8, 5]))
    assert keys_of(found) == [list(range(8)), list(range(8, 16)), list(range(16, 21))]
    assert count_images(a_stream([8, 8, 5])) == 21
    for batch in found:
        np.testing.assert_array_equal(batch.pixels, SAMPLES.pixels[batch.keys.astype(np.int64)])


@pytest.mark.parametrize(
    ("sizes", "totals"),
    [
        ([8, 8, 1], [8, 9]),
        ([8, 0, 1, 8], [8, 9]),
        ([1, 1, 1, 1, 1], [2, 3]),
        ([1], [1]),
        ([], []),
    ],
)
def test_a_batch_too_small_for_batch_norm_is_joined_to_another(sizes: list[int], totals: list[int]) -> None:
    found = batches_of(a_stream(sizes))
    assert [batch.total for batch in found] == [len(batch.keys) for batch in found] == totals


def test_no_image_is_lost_or_repeated_whatever_the_batches() -> None:
    for sizes in product((0, 1, 2, 5), repeat=4):
        found = batches_of(a_stream(sizes))
        assert list(chain.from_iterable(keys_of(found))) == list(range(sum(sizes)))
        assert all(batch.total >= LEAST for batch in found) or sum(sizes) < LEAST
        # Before a batch and behind the last one there may be fewer than the least.
        assert max((batch.total for batch in found), default=0) <= max(LEAST, *sizes) + 2 * (LEAST - 1)


@pytest.mark.parametrize("num_samples", [20, 22])
def test_a_stream_that_does_not_bring_each_image_once_is_refused_before_its_last_batch(num_samples: int) -> None:
    stream = a_stream([8, 8, 5], num_samples=num_samples)
    batches = image_batches(stream, image_size=16, batch_size=8, epoch=1, settings=some_settings())
    assert [next(batches).total, next(batches).total] == [8, 8]
    with pytest.raises(TrainingError, match=f"each of {num_samples} samples once, got 21"):
        next(batches)
