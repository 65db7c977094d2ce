"""Two real ranks over gloo run every scenario once; the tests compare what each rank found with one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.distributed as dist
from finetune_examples import (
    LABELS,
    ArraySamples,
    ListStream,
    a_spec,
    label_sets,
    some_hyperparameters,
    some_samples,
    some_settings,
    subsets_of_a_group,
    two_tasks,
)
from numpy.typing import NDArray
from source_examples import TakenStream
from torch import Tensor
from two_ranks import meeting, run_two_ranks

from orchestrator.errors import DataError, DivergedError, TrainingError
from orchestrator.finetune.checkpoints import TrainingState, load_state, save_state
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import Activations, Layout
from orchestrator.finetune.distributed import rows_of_rank
from orchestrator.finetune.loop import BatchStream, EpochEnd, Samples, fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import EpochMetrics

TIMEOUT_S = 100
RANK_BATCHES = [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]], [[11, 12]]]
GLOBAL_BATCHES = [[0, 1, 2, 3, 11, 12], [4, 5, 6, 7], [8, 9, 10]]
STREAMED = 13


@dataclass
class Outcome:
    """What one rank, or the only process, found in one scenario."""

    history: list[EpochMetrics]
    tensors: dict[str, Tensor]
    callbacks: int
    error: str = ""
    taken: int = 0


def train(
    samples: Samples | BatchStream,
    *,
    resume: TrainingState | None = None,
    states: list[TrainingState] | None = None,
    **changes: object,
) -> Outcome:
    backbone, _ = load_pretrained("none", a_spec(), seed=0)
    is_multi_label = changes.get("loss") == "binary_cross_entropy"
    labels = samples.labels if isinstance(samples, ArraySamples) else samples.samples.labels
    tasks = labels.ndim == 2 and not is_multi_label
    classifier = new_classifier(backbone, (len(LABELS), 2) if tasks else len(LABELS), seed=0)
    validation = two_tasks(11, seed=1, missing=4) if tasks else some_samples(11, seed=1)
    if tasks and (labels[:, 0] < 0).any():
        validation = subsets_of_a_group(11, seed=1)
    if is_multi_label:
        validation = label_sets(11, seed=1)
    settings = {key: changes.pop(key) for key in list(changes) if key in some_settings().__dict__}
    ends: list[EpochEnd] = []

    def on_epoch(end: EpochEnd) -> None:
        ends.append(end)
        if states is not None:
            states.append(end.state)

    outcome = Outcome([], {}, 0)
    activations = changes.pop("activations", None)
    assert activations is None or isinstance(activations, Activations)
    companion = changes.pop("companion", None)
    assert companion is None or isinstance(companion, Companion)
    try:
        result = fine_tune(
            classifier,
            a_spec(),
            samples,
            validation,
            some_hyperparameters(**changes),
            some_settings(**settings),
            on_epoch=on_epoch,
            activations=activations,
            resume=resume,
            companion=companion,
        )
        outcome.history = result.history
    except (DivergedError, TrainingError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
    outcome.tensors = classifier.state_dict()
    outcome.callbacks = len(ends)
    return outcome


def remembered(rank: int) -> Outcome:
    samples = some_samples(30)
    outcome = train(samples, freeze_depth=2, epochs=3)
    outcome.taken = len(samples.taken)
    return outcome


@dataclass
class RowsOfOneRank:
    """Stored rows that the first rank reads and every other process cannot."""

    rank: int

    def take(self, positions: NDArray[np.int64], draw: int) -> NDArray[np.float32]:
        if self.rank != 0:
            raise DataError("an entry must be readable", value="damaged")
        return np.zeros((len(positions), 8 * 8 * 8), dtype=np.float32)

    def check(self) -> None:
        self.take(np.zeros(1, dtype=np.int64), 0)


def a_store_that_one_rank_cannot_read(rank: int) -> Outcome:
    rows, layout = RowsOfOneRank(rank), Layout(shape=(8, 8, 8), channels_last=True)
    activations = Activations(depth=1, layout=layout, dtype="fp32", train=rows, validation=rows)
    return train(some_samples(30), freeze_depth=1, activations=activations)


def everything_trained(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=0, epochs=3)


def recomputed(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=1, epochs=2, activation_bytes=0, optimizer="sgd", precision="bf16")


def a_rank_without_samples(rank: int) -> Outcome:
    return train(some_samples(1), freeze_depth=1)


def unequal_streams(rank: int) -> Outcome:
    batches = GLOBAL_BATCHES if rank < 0 else RANK_BATCHES[rank]
    return train(ListStream(some_samples(STREAMED), batches, STREAMED), freeze_depth=1, optimizer="sgd")


def unequal_streams_of_two_tasks(rank: int) -> Outcome:
    batches = GLOBAL_BATCHES if rank < 0 else RANK_BATCHES[rank]
    stream = ListStream(two_tasks(STREAMED, missing=5), batches, STREAMED)
    return train(stream, freeze_depth=1, optimizer="sgd", task_weighting="size")


def an_empty_stream_of_label_sets(rank: int) -> Outcome:
    stream = ListStream(label_sets(STREAMED), GLOBAL_BATCHES if rank < 1 else [], STREAMED)
    return train(stream, freeze_depth=1, optimizer="sgd", loss="binary_cross_entropy")


def a_source_beside(rank: int) -> Outcome:
    # 31 and 15 samples in batches of 8: ranks have unequal parts of both, and some have none of the source.
    return train(some_samples(31), companion=Companion(samples=some_samples(15, seed=9), batch_share=0.1), epochs=3)


def a_source_beside_a_stream(rank: int) -> Outcome:
    batches = GLOBAL_BATCHES if rank < 0 else RANK_BATCHES[rank]
    companion = Companion(samples=some_samples(15, seed=9), weight=0.5)
    stream = ListStream(some_samples(STREAMED), batches, STREAMED)
    return train(stream, companion=companion, freeze_depth=2, optimizer="sgd")


def a_streamed_source(rank: int, samples: Samples | BatchStream, **changes: object) -> Outcome:
    # Ranks take turns of one order. In batches of 8 and a tenth of them some draw nothing.
    source, world_size = some_samples(15, seed=9), 1 if rank < 0 else 2
    stream = TakenStream(source, list(range(15)), rank=max(rank, 0), world_size=world_size)
    companion = Companion(samples=source, stream=stream, batch_share=0.1)
    outcome = train(samples, companion=companion, **changes)
    outcome.taken = len(stream.taken)
    return outcome


def a_streamed_source_beside(rank: int) -> Outcome:
    return a_streamed_source(rank, some_samples(31), epochs=4)


def a_streamed_source_beside_a_stream(rank: int) -> Outcome:
    batches = GLOBAL_BATCHES if rank < 0 else RANK_BATCHES[rank]
    stream = ListStream(some_samples(STREAMED), batches, STREAMED)
    return a_streamed_source(rank, stream, freeze_depth=2, optimizer="sgd", epochs=3)


def a_penalty_of_each_rank(rank: int) -> Outcome:
    companion = Companion(samples=some_samples(15, seed=9), penalty="coral")
    return train(some_samples(31), companion=companion, freeze_depth=0)


def an_empty_stream(rank: int) -> Outcome:
    batches = GLOBAL_BATCHES if rank < 1 else []
    return train(ListStream(some_samples(STREAMED), batches, STREAMED), freeze_depth=0, optimizer="sgd")


def a_stream_that_loses_samples(rank: int) -> Outcome:
    return train(ListStream(some_samples(STREAMED), RANK_BATCHES[0], STREAMED))


def trained_statistics(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=1, batch_norm="train", epochs=3)


def an_epoch_of_statistics(rank: int) -> Outcome:
    return train(some_samples(32), freeze_depth=1, batch_norm="train", epochs=1, learning_rate=1e-12)


def trained_statistics_of_unequal_streams(rank: int) -> Outcome:
    return train(ListStream(some_samples(STREAMED), RANK_BATCHES[max(rank, 0)], STREAMED), batch_norm="train")


# A bias before BatchNorm has no gradient but rounding, which Adam would turn into whole steps.
SHARED = {"batch_norm": "sync", "optimizer": "sgd", "learning_rate": 0.05}


def shared_statistics(rank: int) -> Outcome:
    return train(some_samples(31), freeze_depth=1, epochs=3, **SHARED)


def shared_statistics_of_stages_freed_in_turn(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=0, epochs=4, strategy="gradual", accumulate=2, ema_decay=0.5, **SHARED)


def shared_statistics_of_batches_of_two(rank: int) -> Outcome:
    return train(some_samples(8), freeze_depth=1, batch_size=2, epochs=3, **SHARED)


def shared_statistics_of_unequal_streams(rank: int) -> Outcome:
    batches = GLOBAL_BATCHES if rank < 0 else RANK_BATCHES[rank]
    return train(ListStream(some_samples(STREAMED), batches, STREAMED), freeze_depth=0, **SHARED)


def shared_statistics_with_adversaries(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=1, adversarial=0.05, **SHARED)


def shared_statistics_beside_a_source(rank: int) -> Outcome:
    return train(some_samples(31), companion=Companion(samples=some_samples(15, seed=9), batch_share=0.1), **SHARED)


def shared_statistics_of_one_sample(rank: int) -> Outcome:
    return train(some_samples(1), freeze_depth=1, **SHARED)


def shared_statistics_resumed(rank: int) -> Outcome:
    states: list[TrainingState] = []
    train(some_samples(31), freeze_depth=1, epochs=3, states=states, **SHARED)
    return train(some_samples(31), freeze_depth=1, epochs=3, resume=from_the_first_rank(states[0], rank), **SHARED)


def diverging(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=0, optimizer="sgd", learning_rate=1e30, epochs=3)


def batches_too_small_for_statistics(rank: int) -> Outcome:
    return train(some_samples(30), batch_size=2, batch_norm="train")


def one_stage_freed_after_the_other(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=0, epochs=4, strategy="gradual", regularizer="l2_sp")


def a_head_that_is_held_and_trained_again(rank: int) -> Outcome:
    return train(
        some_samples(31),
        freeze_depth=1,
        epochs=5,
        strategy="feature_then_network",
        accumulate=2,
        clip_norm=0.1,
        ema_decay=0.5,
        schedule="cosine",
        class_weights="balanced",
    )


def a_cosine_head(rank: int) -> Outcome:
    return train(some_samples(30), freeze_depth=3, epochs=3, head="cosine")


def stages_below_prototypes_of_unequal_streams(rank: int) -> Outcome:
    batches = GLOBAL_BATCHES if rank < 0 else RANK_BATCHES[rank]
    return train(ListStream(some_samples(STREAMED), batches, STREAMED), freeze_depth=1, head="prototype")


def prototypes_alone(rank: int) -> Outcome:
    return train(some_samples(31), freeze_depth=3, epochs=5, head="prototype")


def prototypes_of_a_source_too(rank: int) -> Outcome:
    return train(some_samples(31), companion=prototyped(), freeze_depth=3, epochs=5, head="prototype")


def stages_below_prototypes_of_a_source_too(rank: int) -> Outcome:
    return train(some_samples(31), companion=prototyped(), freeze_depth=1, optimizer="sgd", head="prototype")


def prototyped() -> Companion:
    return Companion(samples=some_samples(15, seed=9), weight=0.4)


def two_tasks_weighed_by_uncertainty(rank: int) -> Outcome:
    return train(two_tasks(31, missing=9), epochs=3, task_weighting="uncertainty", accumulate=2)


def heads_of_two_subsets(rank: int) -> Outcome:
    return train(subsets_of_a_group(31), epochs=3, task_weighting="uncertainty", accumulate=2)


def two_tasks_of_a_rank_without_samples(rank: int) -> Outcome:
    return train(two_tasks(1, missing=1), task_weighting="uncertainty")


def any_number_of_labels(rank: int) -> Outcome:
    return train(label_sets(31), loss="binary_cross_entropy", freeze_depth=0, epochs=3)


def any_number_of_labels_of_a_rank_without_samples(rank: int) -> Outcome:
    return train(label_sets(1), loss="binary_cross_entropy", mixing="mixup", freeze_depth=1)


PHASED = {"freeze_depth": 1, "epochs": 6, "strategy": "feature_then_network", "ema_decay": 0.5, "schedule": "cosine"}


def uninterrupted(rank: int) -> Outcome:
    return train(some_samples(30), **PHASED)


def resumed(rank: int, after: int) -> Outcome:
    states: list[TrainingState] = []
    train(some_samples(30), states=states, **PHASED)
    return train(some_samples(30), resume=from_the_first_rank(states[after - 1], rank), **PHASED)


def from_the_first_rank(state: TrainingState, rank: int) -> TrainingState:
    """Give every rank what the first one has written to the disk, as Ray Train does with a checkpoint."""
    with TemporaryDirectory() as directory:
        place = [directory]
        dist.broadcast_object_list(place)
        if rank == 0:
            save_state(state, Path(directory))
        dist.barrier()
        loaded = load_state(Path(place[0]))
        dist.barrier()
    return loaded


def resumed_while_the_head_is_fitted(rank: int) -> Outcome:
    return resumed(rank, 1)


def resumed_where_the_head_is_held(rank: int) -> Outcome:
    return resumed(rank, 2)


def resumed_before_all_is_trained(rank: int) -> Outcome:
    return resumed(rank, 4)


RESUMED = [resumed_while_the_head_is_fitted, resumed_where_the_head_is_held, resumed_before_all_is_trained]
EQUAL_TO_ONE_PROCESS = [
    uninterrupted,
    one_stage_freed_after_the_other,
    a_head_that_is_held_and_trained_again,
    remembered,
    a_store_that_one_rank_cannot_read,
    everything_trained,
    recomputed,
    a_rank_without_samples,
    two_tasks_weighed_by_uncertainty,
    heads_of_two_subsets,
    two_tasks_of_a_rank_without_samples,
    any_number_of_labels,
    any_number_of_labels_of_a_rank_without_samples,
    unequal_streams,
    unequal_streams_of_two_tasks,
    an_empty_stream,
    an_empty_stream_of_label_sets,
    a_source_beside,
    a_source_beside_a_stream,
    a_streamed_source_beside,
    a_streamed_source_beside_a_stream,
    a_cosine_head,
    stages_below_prototypes_of_unequal_streams,
    stages_below_prototypes_of_a_source_too,
]
EQUAL_WITH_SHARED_STATISTICS = [
    shared_statistics,
    shared_statistics_of_stages_freed_in_turn,
    shared_statistics_of_unequal_streams,
    shared_statistics_with_adversaries,
    shared_statistics_beside_a_source,
    shared_statistics_of_one_sample,
]
SCENARIOS: list[Callable[[int], Outcome]] = [
    *EQUAL_TO_ONE_PROCESS,
    *EQUAL_WITH_SHARED_STATISTICS,
    shared_statistics_of_batches_of_two,
    shared_statistics_resumed,
    *RESUMED,
    prototypes_alone,
    prototypes_of_a_source_too,
    a_stream_that_loses_samples,
    trained_statistics,
    an_epoch_of_statistics,
    trained_statistics_of_unequal_streams,
    diverging,
    batches_too_small_for_statistics,
    a_penalty_of_each_rank,
]


def run_rank(rank: int, directory: str) -> None:
    with meeting(rank, directory, timeout_s=TIMEOUT_S):
        for scenario in SCENARIOS:
            outcome = scenario(rank)
            torch.save(
                {**outcome.__dict__, "history": [metrics.model_dump() for metrics in outcome.history]},
                Path(directory) / f"{scenario.__name__}-{rank}.pt",
            )


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[int], Outcome]], list[Outcome]]:
    directory = tmp_path_factory.mktemp("ranks")
    run_two_ranks(run_rank, directory, timeout_s=TIMEOUT_S)

    def outcomes(scenario: Callable[[int], Outcome]) -> list[Outcome]:
        found = [torch.load(directory / f"{scenario.__name__}-{rank}.pt", weights_only=True) for rank in range(2)]
        histories = [[EpochMetrics.model_validate(entry) for entry in each.pop("history")] for each in found]
        return [Outcome(history=history, **each) for history, each in zip(histories, found, strict=True)]

    return outcomes


OnTwoRanks = Callable[[Callable[[int], Outcome]], list[Outcome]]


@pytest.mark.parametrize("scenario", EQUAL_TO_ONE_PROCESS)
def test_two_ranks_are_one_process_with_the_same_global_batches(
    on_two_ranks: OnTwoRanks, scenario: Callable[[int], Outcome]
) -> None:
    alone = scenario(-1)
    # bf16 rounds by the shape of the batch.
    of_losses, of_weights = (1e-2, 1e-2) if scenario is recomputed else (1e-5, 1e-4)
    assert len(alone.history) >= 2
    for outcome in on_two_ranks(scenario):
        assert outcome.error == ""
        for one, other in zip(outcome.history, alone.history, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, abs=of_losses)
            assert one.val_loss == pytest.approx(other.val_loss, abs=of_losses)
        for name, tensor in outcome.tensors.items():
            torch.testing.assert_close(tensor, alone.tensors[name], atol=of_weights, rtol=0)


def test_ranks_draw_equally_many_of_a_streamed_source_or_one_more_however_few_a_batch_has(
    on_two_ranks: OnTwoRanks,
) -> None:
    # A ninth of 4 x 31 images.
    assert [outcome.taken for outcome in on_two_ranks(a_streamed_source_beside)] == [7, 6]
    assert a_streamed_source_beside(-1).taken == 13


@pytest.mark.parametrize("scenario", EQUAL_WITH_SHARED_STATISTICS)
def test_ranks_that_share_statistics_are_one_process_that_learns_them(
    on_two_ranks: OnTwoRanks, scenario: Callable[[int], Outcome]
) -> None:
    alone = scenario(-1)
    for outcome in on_two_ranks(scenario):
        assert outcome.error == ""
        for one, other in zip(outcome.history, alone.history, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
            assert one.val_loss == pytest.approx(other.val_loss, abs=1e-5)
        assert list(outcome.tensors) == list(alone.tensors)
        for name, tensor in outcome.tensors.items():
            torch.testing.assert_close(tensor, alone.tensors[name], atol=1e-4, rtol=0)


def test_shared_statistics_are_learnt_where_stages_are_trained_alone(on_two_ranks: OnTwoRanks) -> None:
    start = load_pretrained("none", a_spec(), seed=0)[0].state_dict()
    for name, tensor in on_two_ranks(shared_statistics)[0].tensors.items():
        if "running" in name or "num_batches" in name:
            is_frozen = name.startswith("backbone.stages.0.")
            assert torch.equal(tensor, start[name.removeprefix("backbone.")]) is is_frozen


def test_a_killed_training_with_shared_statistics_goes_on_as_if_it_had_not_been(on_two_ranks: OnTwoRanks) -> None:
    for found, expected in zip(on_two_ranks(shared_statistics_resumed), on_two_ranks(shared_statistics), strict=True):
        assert found.history == expected.history
        assert all(torch.equal(tensor, expected.tensors[name]) for name, tensor in found.tensors.items())


def test_alone_sharing_statistics_changes_no_bit() -> None:
    shared, plain = (
        shared_statistics(-1),
        train(some_samples(31), freeze_depth=1, epochs=3, **{**SHARED, "batch_norm": "train"}),
    )
    assert shared.history == plain.history
    assert all(torch.equal(tensor, plain.tensors[name]) for name, tensor in shared.tensors.items())


def test_two_ranks_rank_all_validation_images_for_the_average_precision(on_two_ranks: OnTwoRanks) -> None:
    alone = any_number_of_labels(-1)
    for outcome in on_two_ranks(any_number_of_labels):
        found = [metrics.val_accuracy for metrics in outcome.history]
        assert found == pytest.approx([metrics.val_accuracy for metrics in alone.history], abs=1e-9)


@pytest.mark.parametrize("scenario", RESUMED)
def test_two_ranks_that_were_killed_go_on_as_if_they_had_not_been(
    on_two_ranks: OnTwoRanks, scenario: Callable[[int], Outcome]
) -> None:
    for found, expected in zip(on_two_ranks(scenario), on_two_ranks(uninterrupted), strict=True):
        assert [metrics.epoch for metrics in found.history] == list(range(1, 7))
        for one, other in zip(found.history, expected.history, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-6)
            assert one.val_loss == pytest.approx(other.val_loss, abs=1e-6)
        for name, tensor in found.tensors.items():
            torch.testing.assert_close(tensor, expected.tensors[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks_agree_to_the_bit_and_each_is_called_back(
    on_two_ranks: OnTwoRanks, scenario: Callable[[int], Outcome]
) -> None:
    one, other = on_two_ranks(scenario)
    assert one.history == other.history
    assert one.callbacks == other.callbacks
    assert scenario in (*RESUMED, shared_statistics_resumed) or one.callbacks == len(one.history)
    assert one.error == other.error
    if not one.error:
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


@pytest.mark.parametrize("scenario", [prototypes_alone, prototypes_of_a_source_too])
def test_prototypes_of_two_ranks_are_those_of_one_process(
    on_two_ranks: OnTwoRanks, scenario: Callable[[int], Outcome]
) -> None:
    (found, _), alone = on_two_ranks(scenario), scenario(-1)
    assert len(found.history) == len(alone.history) == 1
    assert found.history[0].train_loss == pytest.approx(alone.history[0].train_loss, abs=1e-6)
    torch.testing.assert_close(found.tensors["head.weight"], alone.tensors["head.weight"], atol=1e-6, rtol=1e-5)


def test_a_frozen_prefix_is_run_once_by_the_ranks_together(on_two_ranks: OnTwoRanks) -> None:
    assert [outcome.taken for outcome in on_two_ranks(remembered)] == [15, 15]


def test_trained_statistics_differ_from_the_pretrained_ones(on_two_ranks: OnTwoRanks) -> None:
    for scenario in (trained_statistics, trained_statistics_of_unequal_streams):
        for name, tensor in on_two_ranks(scenario)[0].tensors.items():
            if name.endswith("running_mean"):
                assert bool(tensor.any()) is not name.startswith("backbone.stages.0.")


def test_statistics_are_averaged_over_the_ranks(on_two_ranks: OnTwoRanks) -> None:
    # The first layer that learns sees the same inputs either way, and the mean of equal shares is that of all.
    name = "backbone.stages.1.1.running_mean"
    expected = an_epoch_of_statistics(-1).tensors[name]
    torch.testing.assert_close(on_two_ranks(an_epoch_of_statistics)[0].tensors[name], expected, atol=1e-6, rtol=1e-5)


def test_every_rank_learns_of_a_divergence(on_two_ranks: OnTwoRanks) -> None:
    assert on_two_ranks(diverging)[1].error.startswith("DivergedError: the loss must stay finite")


def test_every_rank_learns_that_samples_were_not_seen_once(on_two_ranks: OnTwoRanks) -> None:
    assert "each of 13 samples once, got 22" in on_two_ranks(a_stream_that_loses_samples)[0].error


def test_batches_too_small_to_train_statistics_are_refused(on_two_ranks: OnTwoRanks) -> None:
    [error, _] = [outcome.error for outcome in on_two_ranks(batches_too_small_for_statistics)]
    assert "batch_size must be at least 4 to train BatchNorm on 2 workers, got 2" in error


def test_batches_too_small_for_the_statistics_of_a_rank_are_enough_for_those_of_all(on_two_ranks: OnTwoRanks) -> None:
    [error, _] = [outcome.error for outcome in on_two_ranks(shared_statistics_of_batches_of_two)]
    assert error == ""


def test_rows_of_one_process_are_all_rows() -> None:
    assert np.arange(7)[rows_of_rank(7, 0)].tolist() == list(range(7))
