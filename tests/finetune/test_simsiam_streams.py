"""SimSiam learns from a stream of images what it learns from the same images held, without their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from finetune_examples import ArraySamples, ImageListStream, a_spec, some_samples, some_settings
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.config import SimSiamConfig
from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import plan_batches
from orchestrator.finetune.contracts import ImageStream, Samples
from orchestrator.finetune.simsiam import new_simsiam
from orchestrator.finetune.simsiam_checkpoints import SimSiamState
from orchestrator.finetune.simsiam_training import SimSiamResult, train_simsiam
from orchestrator.finetune.weights import load_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SimSiamConfig(epochs=3, batch_size=16, learning_rate=1.0, width=16)
# The last batch of each epoch has a single image, which plan_batches joins to the one before.
SAMPLES = some_samples(49)


@dataclass
class PlannedStream:
    """A stream that brings samples in the order in which they would be drawn if they were held."""

    samples: ArraySamples

    @property
    def num_samples(self) -> int:
        return len(self.samples)

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint64]]]:
        order = np.concatenate(plan_batches(len(self.samples), CONFIG.batch_size, some_settings().order_seed, epoch))
        for start in range(0, len(order), CONFIG.batch_size):
            batch = order[start : start + CONFIG.batch_size]
            yield self.samples.pixels[batch], self.samples.keys[batch]


def train(
    images: Samples | ImageStream, *, states: list[SimSiamState] | None = None, resume: SimSiamState | None = None
) -> tuple[SimSiamResult, dict[str, Tensor]]:
    model = new_simsiam(load_pretrained("none", a_spec(), seed=0)[0], CONFIG, seed=0)
    kept = [] if states is None else states
    result = train_simsiam(
        model,
        a_spec(),
        images,
        CONFIG,
        some_settings(),
        on_epoch=lambda end: kept.append(end.take_state()),
        resume=resume,
    )
    return result, model.state_dict()


def assert_equal(
    found: tuple[SimSiamResult, dict[str, Tensor]], expected: tuple[SimSiamResult, dict[str, Tensor]]
) -> None:
    assert found[0].history == expected[0].history
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in found[1].items())


def test_a_stream_trains_to_the_bit_as_the_same_batches_of_held_images_do() -> None:
    assert_equal(train(PlannedStream(SAMPLES)), train(SAMPLES))


def test_a_killed_training_on_a_stream_of_the_same_order_goes_on_as_if_it_had_not_been() -> None:
    states: list[SimSiamState] = []
    whole = train(PlannedStream(SAMPLES), states=states)
    assert_equal(train(PlannedStream(SAMPLES), resume=states[0]), whole)


def test_an_image_has_the_same_views_wherever_it_comes_in_a_stream() -> None:
    batches = [list(range(16)), list(range(16, 32))]
    one, other = (
        train(ImageListStream(SAMPLES, order, 32))[0].history[0]
        for order in (batches, [batch[::-1] for batch in batches])
    )
    assert one.loss == pytest.approx(other.loss, abs=1e-5)
    assert one.spread == pytest.approx(other.spread, abs=1e-5)


def test_a_stream_of_too_few_images_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"number of training images must be at least 2 .* got 1"):
        train(ImageListStream(SAMPLES, [[0]], 1))


def test_a_stream_that_loses_an_image_is_refused() -> None:
    with pytest.raises(TrainingError, match="each of 33 samples once, got 32"):
        train(ImageListStream(SAMPLES, [list(range(32))], 33))
