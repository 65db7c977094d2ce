"""A source that is streamed: what is drawn, from where a resume goes on, and what it learns beside a held one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from finetune_examples import LABELS, ArraySamples, ListStream, a_spec, some_samples, some_settings
from numpy.typing import NDArray
from source_examples import TakenStream
from test_companions import equal, train
from torch import nn

from orchestrator.config import AugmentConfig
from orchestrator.errors import DivergedError, TrainingError
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.cosine import CosineHead
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.prefix import Prefix
from orchestrator.finetune.source_streams import StreamedDraws

SOURCE = 20


def held_part(samples: ArraySamples, count: int = 5) -> ArraySamples:
    return ArraySamples(samples.pixels[:count], samples.labels[:count])


def streamed(source: ArraySamples, order: list[int] | None = None, **changes: Any) -> tuple[Companion, TakenStream]:
    """Give a companion that holds some of a source and streams all of it, in turns of this order."""
    stream = TakenStream(source, list(range(len(source))) if order is None else order)
    return Companion(samples=held_part(source), stream=stream, **changes), stream


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze_depth": 0},
        {"freeze_depth": 2, "strategy": "gradual", "accumulate": 2, "class_weights": "balanced"},
        {"freeze_depth": 3, "mixing": "mixup"},
    ],
)
def test_a_stream_in_the_order_of_a_held_source_teaches_what_that_teaches(changes: dict[str, Any]) -> None:
    source = some_samples(SOURCE, seed=9, noisy_labels=True)
    # Depth 0 takes every sample when it is drawn.
    train(Companion(samples=source), freeze_depth=0, epochs=3)
    order = source.taken.copy()
    whole, result = train(Companion(samples=source, penalty="coral"), epochs=3, **changes)
    companion, stream = streamed(source, order, penalty="coral")
    found, again = train(companion, epochs=3, **changes)
    assert len(order) == len(stream.taken) == 90
    assert [entry.train_loss for entry in again.history] == pytest.approx(
        [entry.train_loss for entry in result.history], abs=1e-5
    )
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_streamed_source_is_seen_evenly_over_all_epochs_beside_a_held_or_a_streamed_target() -> None:
    cut = [[*range(8)], [*range(8, 16)], [*range(16, 30)]]
    for target in (some_samples(30), ListStream(some_samples(30), cut, 30)):
        companion, stream = streamed(some_samples(SOURCE, seed=9), batch_share=0.4)
        train(companion, target, freeze_depth=0, epochs=4)
        # 0.4 / 0.6 of 4 x 30 images are 80, four times each of the twenty.
        assert Counter(stream.taken) == Counter(dict.fromkeys(range(SOURCE), 4))
        assert isinstance(companion.samples, ArraySamples) and not companion.samples.taken


def test_a_resumed_training_goes_on_where_the_stream_was_left() -> None:
    source = some_samples(SOURCE, seed=9)
    states: list[TrainingState] = []
    whole, result = train(streamed(source)[0], states=states, epochs=3, freeze_depth=1)
    companion, stream = streamed(source)
    again, resumed = train(companion, resume=states[0], epochs=3, freeze_depth=1)
    assert stream.opened == [30] and len(stream.taken) == 60
    assert equal(whole.state_dict(), again.state_dict())
    assert result.history == resumed.history


def test_a_stream_is_opened_once_and_let_go_however_a_training_ends() -> None:
    companion, stream = streamed(some_samples(SOURCE, seed=9))
    train(companion, epochs=3)
    assert stream.opened == [0] and stream.num_closed == 1
    companion, stream = streamed(some_samples(SOURCE, seed=9))
    with pytest.raises(DivergedError):
        train(companion, freeze_depth=0, optimizer="sgd", learning_rate=1e30, epochs=3)
    assert stream.opened == [0] and stream.num_closed == 1


def test_a_stream_that_is_not_drawn_from_is_not_opened() -> None:
    for changes in ({"batch_share": 0.001}, {"weight": 0.0}):
        companion, stream = streamed(some_samples(SOURCE, seed=9), **changes)
        train(companion, epochs=2)
        assert not stream.opened


def test_a_stream_that_ends_is_an_error() -> None:
    companion, stream = streamed(some_samples(SOURCE, seed=9))
    companion = replace(companion, stream=EndingStream(stream.samples, stream.order))
    with pytest.raises(TrainingError, match="a source that is streamed must never end"):
        train(companion, epochs=3)


@dataclass
class EndingStream(TakenStream):
    def draws(self, first: int) -> Generator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        yield self.samples.pixels, self.samples.labels


def test_classes_are_weighed_by_all_images_of_a_streamed_source() -> None:
    source = some_samples(SOURCE, seed=9)
    companion, _ = streamed(source)
    assert companion.label_counts.by_task[0].tolist() == LabelCounts.of(source.labels).by_task[0].tolist()
    assert len(companion.samples) < SOURCE


def test_a_cosine_head_starts_from_what_is_held_and_learns_classes_of_which_nothing_is() -> None:
    source = some_samples(30, seed=9)
    # Two classes of its own, of which the second is in no held image.
    labels = np.where(np.arange(30) < 5, len(LABELS), len(LABELS) + 1)
    source = ArraySamples(source.pixels, labels)
    companion, stream = streamed(source, num_extra=2)

    def rows(rate: float) -> torch.Tensor:
        classifier, _ = train(companion, head="cosine", freeze_depth=1, epochs=2, learning_rate=rate)
        assert isinstance(classifier.head, CosineHead)
        return classifier.head.weight.detach()

    start, learnt = rows(1e-12), rows(3e-3)
    lengths = start.norm(dim=1)
    torch.testing.assert_close(lengths[:4], torch.ones(4), atol=1e-3, rtol=0)
    # The class of which nothing is held begins at random, and is learnt from the stream.
    assert 0 < lengths[4] != 1 and not torch.allclose(learnt[4], start[4], atol=1e-3)
    assert set(stream.taken) == set(range(30))


@pytest.mark.parametrize("augment", [AugmentConfig(views=0, crop=0.4), AugmentConfig(views=2, crop=0.4)])
def test_a_streamed_image_is_varied_anew_at_every_draw_and_a_resume_varies_it_alike(augment: AugmentConfig) -> None:
    def drawn(first: int, last: int, settings: dict[str, Any]) -> torch.Tensor:
        prefix = Prefix(stages=nn.Sequential(), spec=a_spec(), settings=some_settings(**settings))
        part = StreamedDraws(TakenStream(some_samples(1), [0]), prefix).take(first, last, epoch=1)
        assert part is not None and part[1].tolist() == [0] * (last - first)
        return part[0]

    plain, varied = drawn(0, 6, {}), drawn(0, 6, {"augment": augment})
    assert len(torch.unique(plain, dim=0)) == 1 and len(torch.unique(varied, dim=0)) > 3
    assert torch.equal(drawn(2, 6, {"augment": augment}), varied[2:])
