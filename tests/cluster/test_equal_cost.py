"""What an epoch from scratch costs, in epochs of the training that it is held against: no cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from finetune_examples import (
    LABELS,
    ArraySamples,
    a_spec,
    some_hyperparameters,
    some_samples,
    subsets_of_a_group,
)
from workbenches import random_workbench

from orchestrator.cluster.equal_cost import Rival, measure_epoch_cost
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.label_counts import NO_LABEL
from orchestrator.records import TaskClasses
from orchestrator.search.arms import affordable_epochs

NUM_TRAIN = 192


def cost_of(
    rival: dict[str, Any],
    *,
    num_train: int = NUM_TRAIN,
    epochs: int = 8,
    companion: Companion | None = None,
    streams_source: bool = False,
) -> tuple[float, int]:
    """Give the cost of an epoch from scratch, and how often two trainings were tried."""
    rounds: list[None] = []
    samples = GroupSamples(
        group="low",
        classes=LABELS,
        train=some_samples(NUM_TRAIN, image_size=32),
        validation=some_samples(48, image_size=32),
    )
    found = measure_epoch_cost(
        some_hyperparameters(freeze_depth=0),
        samples,
        Rival(
            hyperparameters=some_hyperparameters(**rival),
            epochs=epochs,
            num_train=num_train,
            companion=companion,
            streams_source=streams_source,
        ),
        random_workbench(a_spec(image_size=32)),
        "cpu",
        on_round=lambda: rounds.append(None),
    )
    return found, len(rounds)


@pytest.mark.parametrize("changes", [{}, {"learning_rate": 0.5, "regularizer": "l2_sp", "patience": 2}])
def test_the_same_network_from_the_same_depth_costs_exactly_the_same(changes: dict[str, Any]) -> None:
    assert cost_of({"freeze_depth": 0, **changes}) == (1.0, 0)


def test_a_source_that_counts_for_nothing_costs_nothing() -> None:
    idle = Companion(samples=some_samples(90, image_size=32), weight=0.0)
    assert cost_of({"freeze_depth": 0}, companion=idle) == (1.0, 0)


def test_where_a_group_streams_more_images_than_are_cached_an_epoch_on_those_costs_their_share() -> None:
    cost, _ = cost_of({"freeze_depth": 0}, num_train=4 * NUM_TRAIN)
    assert cost == 0.25 and affordable_epochs(8, cost) == 32


def test_epochs_of_the_head_alone_are_cheaper_unless_streamed_images_go_through_the_frozen_stages_every_time() -> None:
    kept, rounds = cost_of({"freeze_depth": 3}, epochs=100)
    streamed, _ = cost_of({"freeze_depth": 3}, epochs=100, num_train=2 * NUM_TRAIN)
    # Half of the streamed images are cached, which alone would make it half as much.
    assert rounds >= 3 and kept > 2 and streamed < kept / 2.5


def test_a_source_beside_the_target_makes_epochs_from_scratch_cheaper_in_comparison() -> None:
    source = Companion(samples=some_samples(900, image_size=32), batch_share=0.75)
    cost, _ = cost_of({"freeze_depth": 0}, companion=source)
    # Three source images beside each of the target.
    assert 0.2 < cost < 0.85


def test_a_single_pass_is_tried_beside_its_share_of_what_it_looked_at_of_a_source() -> None:
    large = ArraySamples(np.zeros((3000, 32, 32, 3), np.uint8), np.zeros(3000, np.int64))
    _, rounds = cost_of({"freeze_depth": 3, "head": "prototype"}, companion=Companion(samples=large))
    # 128 of the target's 192 images.
    assert len(large.taken) == rounds * round(128 / NUM_TRAIN * 2048)


def test_a_streamed_source_passes_the_frozen_stages_at_every_draw_which_costs_more_than_a_held_one() -> None:
    source = Companion(samples=some_samples(300, image_size=32), batch_share=0.75)
    held, streamed = (
        cost_of({"freeze_depth": 3}, epochs=100, companion=source, streams_source=found)[0] for found in (False, True)
    )
    assert streamed < held / 2


def test_what_heads_of_subsets_are_tried_on_is_judged_by_one_of_them() -> None:
    every = subsets_of_a_group(48)
    is_known = (every.labels != NO_LABEL).any(axis=1)
    # The first validation images are of a subset without a head: they would be chosen first.
    validation = ArraySamples(every.pixels, np.where(np.arange(48)[:, None] < 40, NO_LABEL, every.labels))
    assert is_known.all()
    heads = (TaskClasses(task="north", classes=["a", "b", "c"]), TaskClasses(task="south", classes=["d", "e"]))
    samples = GroupSamples(
        group="low", classes=tuple("abcde"), train=every, validation=validation, tasks=heads, heads="subset"
    )
    rival = Rival(hyperparameters=some_hyperparameters(freeze_depth=3), epochs=4, num_train=48, companion=None)
    workbench = random_workbench(a_spec())
    assert measure_epoch_cost(some_hyperparameters(freeze_depth=0), samples, rival, workbench, "cpu") > 0
