"""The cost rule keeps what pays and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.records import CompiledCost, CostFigures
from orchestrator.search.costs import (
    DepthPlan,
    SourceLoad,
    Workload,
    compile_what_pays,
    expected_epochs,
    plan_cache,
    source_seconds,
    worth_compiling,
)

# Three stages: the first is dear and leaves much, the last leaves little.
FIGURES = CostFigures(
    decode_s=5e-4,
    read_pixels_s=2e-5,
    forward_s=(1e-3, 5e-4, 5e-4),
    train_s=(6e-3, 3e-3, 1.5e-3, 1e-5),
    validate_s=(2e-3, 1e-3, 5e-4, 5e-6),
    activation_bytes=(0, 400_000, 50_000, 5_000),
    read_bytes_per_s=2e9,
    write_bytes_per_s=5e8,
)
WORK = Workload(num_train=1000, num_validation=200, views=1, epochs={0: 50, 1: 50, 2: 50, 3: 50})


def kept(plans: list[DepthPlan]) -> list[int]:
    return [plan.depth for plan in plans if plan.source == "activations"]


def test_depths_whose_activations_pay_are_kept() -> None:
    assert kept(plan_cache(FIGURES, WORK, max_bytes=10**12)) == [1, 2, 3]


def test_without_frozen_stages_there_is_nothing_to_keep() -> None:
    assert plan_cache(FIGURES, WORK, max_bytes=10**12)[0].source == "pixels"


def test_a_depth_that_no_trial_uses_is_not_kept() -> None:
    work = replace(WORK, epochs={3: 50})
    assert kept(plan_cache(FIGURES, work, max_bytes=10**12)) == [3]


def test_large_activations_on_a_slow_disk_are_not_kept() -> None:
    slow = FIGURES.model_copy(update={"read_bytes_per_s": 2e8})
    plans = plan_cache(slow, WORK, max_bytes=10**12)
    assert kept(plans) == [2, 3]
    assert plans[1].epoch_s == plans[1].uncached_epoch_s and plans[1].saving_s <= 0


def test_a_cache_for_one_epoch_does_not_pay() -> None:
    assert kept(plan_cache(FIGURES, replace(WORK, epochs={1: 1, 2: 1, 3: 1}), max_bytes=10**12)) == []


def test_what_does_not_pay_is_kept_where_the_user_says_always() -> None:
    one = replace(WORK, epochs={0: 1, 1: 1, 3: 1})
    plans = plan_cache(FIGURES, one, max_bytes=10**12, always=True)
    assert kept(plans) == [1, 3]
    assert all(plan.saving_s < 0 for plan in plans if plan.source == "activations")


def test_views_of_validation_samples_take_room_and_time_to_build() -> None:
    plain, folds = (replace(WORK, views=4, validation_views=views) for views in (1, 4))
    assert folds.num_rows - plain.num_rows == 3 * WORK.num_validation
    before, after = (plan_cache(FIGURES, work, max_bytes=10**12)[3] for work in (plain, folds))
    assert after.stored_bytes > before.stored_bytes and after.saving_s < before.saving_s


def test_in_little_room_what_saves_most_a_byte_stays() -> None:
    room = WORK.num_rows * (FIGURES.activation_bytes[2] + FIGURES.activation_bytes[3])
    assert kept(plan_cache(FIGURES, WORK, max_bytes=room)) == [2, 3]
    assert kept(plan_cache(FIGURES, WORK, max_bytes=WORK.num_rows * FIGURES.activation_bytes[3])) == [3]


def test_augmentation_drawn_afresh_stops_the_cache_at_the_pixels() -> None:
    plans = plan_cache(FIGURES, replace(WORK, views=0), max_bytes=10**12)
    assert {plan.source for plan in plans} == {"pixels"}
    streamed = plan_cache(FIGURES, replace(WORK, views=0, pixels_are_cached=False), max_bytes=10**12)
    assert {plan.source for plan in streamed} == {"images"}


def test_every_view_is_stored_and_built() -> None:
    one, many = (plan_cache(FIGURES, replace(WORK, views=views), max_bytes=10**12)[3] for views in (1, 4))
    assert many.stored_bytes == (4 * 1000 + 200) * 5_000 == pytest.approx(3.5 * one.stored_bytes, rel=0.01)
    assert many.build_s > 3 * one.build_s and many.epoch_s == one.epoch_s


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_plan_is_slower_than_without(depth: int) -> None:
    for rate in (1e6, 1e8, 1e10):
        plan = plan_cache(FIGURES.model_copy(update={"read_bytes_per_s": rate}), WORK, max_bytes=10**12)[depth]
        assert plan.epoch_s <= plan.uncached_epoch_s


def test_epochs_are_shared_out_over_the_depths() -> None:
    assert expected_epochs({0: 0.25, 3: 0.75}, num_trials=40, mean_epochs=10) == {0: 100, 3: 300}


def test_compiling_is_only_tried_where_a_trial_is_long_enough_to_gain() -> None:
    assert worth_compiling(FIGURES, [0, 1, 2], trained_rows=1000) == []
    assert worth_compiling(FIGURES, [0, 1, 2], trained_rows=5000) == [0]
    assert worth_compiling(FIGURES, [1, 2], trained_rows=100_000) == [1, 2]


def test_a_depth_is_compiled_when_a_trial_gains_more_than_compiling_takes() -> None:
    measured = {0: CompiledCost(train_s=4e-3, compile_s=30.0), 1: CompiledCost(train_s=2.9e-3, compile_s=20.0)}
    unchanged, none = compile_what_pays(FIGURES, measured, trained_rows=10_000)
    assert none == frozenset() and unchanged == FIGURES
    figures, chosen = compile_what_pays(FIGURES, measured, trained_rows=30_000)
    assert chosen == {0}
    # The trial pays for its own compiling.
    assert figures.train_s == (pytest.approx(5e-3), *FIGURES.train_s[1:])


LOAD = SourceLoad(num_images=300, num_draws=3000, views=1, most_bytes=10**9)


def test_a_source_is_trained_on_at_every_draw_and_passes_the_frozen_stages_once() -> None:
    once = 300 * (2e-5 + 1e-3 + 5e-4)
    assert source_seconds(FIGURES, LOAD, 2) == pytest.approx(3000 * 1.5e-3 + once)
    assert source_seconds(FIGURES, replace(LOAD, views=4), 2) == pytest.approx(3000 * 1.5e-3 + 4 * once)
    # A short training draws a part of it.
    assert source_seconds(FIGURES, replace(LOAD, num_draws=30), 2) == pytest.approx(30 * 1.5e-3 + once / 10)


@pytest.mark.parametrize(("load", "depth"), [(replace(LOAD, most_bytes=10**6), 2), (replace(LOAD, views=0), 2)])
def test_what_is_not_kept_of_a_source_passes_the_frozen_stages_at_every_draw(load: SourceLoad, depth: int) -> None:
    assert source_seconds(FIGURES, load, depth) == pytest.approx(3000 * (1.5e-3 + 2e-5 + 1e-3 + 5e-4))


def test_without_frozen_stages_a_source_is_only_read_and_trained_on() -> None:
    assert source_seconds(FIGURES, LOAD, 0) == pytest.approx(3000 * (6e-3 + 2e-5))
