import numpy as np
import pytest
from evaluation_examples import a_prediction_table, paired

from orchestrator.evaluation.comparisons import pool
from orchestrator.evaluation.intervals import paired_gain
from orchestrator.evaluation.predictions import Predictions


def a_group(num_images: int, seed: int, *baselines: str) -> Predictions:
    rng = np.random.default_rng(seed)
    predictions = a_prediction_table(num_images, seed=seed, group=f"group{seed}")
    return predictions.with_baselines({name: rng.random(num_images) < 0.5 for name in baselines})


def test_every_image_of_every_group_weighs_the_same() -> None:
    groups = [a_group(10, 1, "fixed_rule"), a_group(90, 2, "fixed_rule")]
    (found,) = pool([paired(group) for group in groups], bootstrap_samples=500, seed=5)
    correct = np.concatenate([group.correct for group in groups])
    baseline = np.concatenate([group.baselines["fixed_rule"] for group in groups])
    assert (found.baseline, found.num_images) == ("fixed_rule", 100)
    assert found.accuracy == pytest.approx(correct.mean())
    assert found.baseline_accuracy == pytest.approx(baseline.mean())
    assert (found.accuracy_gain, found.accuracy_gain_interval) == paired_gain(correct, baseline, 500, 5)


def test_kin_is_drawn_together_also_where_it_is_spread_over_groups() -> None:
    # Both groups name their kin alike: each of the ten is in both of them.
    parts = [a_prediction_table(40, seed=seed, images_of_one_kin=4, group=f"group{seed}") for seed in (1, 2)]
    groups = [part.with_baselines({"fixed_rule": np.roll(part.correct, 1)}) for part in parts]
    (found,) = pool([paired(group) for group in groups], bootstrap_samples=500, seed=5)
    correct = np.concatenate([group.correct for group in groups])
    baseline = np.concatenate([group.baselines["fixed_rule"] for group in groups])
    units = np.tile(np.repeat(np.arange(10), 4), 2)
    assert found.accuracy_gain_interval == paired_gain(correct, baseline, 500, 5, units)[1]


def test_only_baselines_that_all_groups_have_are_compared() -> None:
    groups = [a_group(10, 1, "fixed_rule", "head_only"), a_group(10, 2, "head_only", "from_scratch")]
    assert [found.baseline for found in pool([paired(group) for group in groups], bootstrap_samples=100, seed=0)] == [
        "head_only"
    ]


def test_a_group_without_test_images_stops_no_comparison() -> None:
    groups = [a_prediction_table(0), a_group(10, 1, "fixed_rule")]
    assert [found.num_images for found in pool([paired(group) for group in groups], bootstrap_samples=100, seed=0)] == [
        10
    ]


def test_groups_with_different_numbers_of_classes_pool() -> None:
    two = a_prediction_table(10, num_classes=2, group="two").with_baselines({"fixed_rule": [False] * 10})
    five = a_prediction_table(10, num_classes=5, group="five").with_baselines({"fixed_rule": [False] * 10})
    (found,) = pool([paired(two), paired(five)], bootstrap_samples=100, seed=0)
    assert found.accuracy_gain == pytest.approx((two.correct.sum() + five.correct.sum()) / 20)


def test_nothing_tested_gives_nothing_to_compare() -> None:
    assert pool([], bootstrap_samples=100, seed=0) == []
    assert pool([paired(a_prediction_table(0))], bootstrap_samples=100, seed=0) == []
