"""Every image is judged by the head of its subset, over the classes of the whole group."""

from __future__ import annotations

import numpy as np
from evaluation_examples import a_prediction_table

from orchestrator.evaluation.heads import ONE_HEAD, by_own_heads, judge_heads, output_of
from orchestrator.evaluation.intervals import paired_gain
from orchestrator.records import TaskClasses

HEADS = [TaskClasses(task="north", classes=["cat", "owl"]), TaskClasses(task="south", classes=["ant", "cat", "owl"])]
CLASSES = ["ant", "bee", "cat", "owl"]
SIDE_BY_SIDE = np.array([[0.9, 0.1, 0.2, 0.5, 0.3], [0.4, 0.6, 0.7, 0.2, 0.1]], dtype=np.float32)


def test_probabilities_are_those_of_the_subsets_head_and_zero_for_classes_it_does_not_know() -> None:
    found = by_own_heads(SIDE_BY_SIDE, ["north", "south"], HEADS, CLASSES)
    np.testing.assert_array_equal(found, np.float32([[0, 0, 0.9, 0.1], [0.7, 0, 0.2, 0.1]]))


def test_a_subset_without_a_head_has_the_mean_of_all() -> None:
    found = by_own_heads(SIDE_BY_SIDE, ["west", "north"], HEADS, CLASSES)
    np.testing.assert_allclose(found, [[0.1, 0, 0.7, 0.2], [0, 0, 0.4, 0.6]], rtol=1e-6)


def test_no_images_have_no_probabilities() -> None:
    empty = np.zeros((0, 5), dtype=np.float32)
    assert by_own_heads(empty, [], HEADS, CLASSES).shape == (0, 4)


def test_the_output_that_speaks_for_a_class_is_in_the_subsets_part() -> None:
    outputs = [output_of(*pair, HEADS) for pair in (("north", "owl"), ("south", "owl"), ("west", "ant"))]
    assert outputs == [1, 4, 2]


def test_a_head_is_compared_with_one_head_for_all_on_its_subsets_images() -> None:
    predictions = a_prediction_table(80, subsets=("north", "west"))
    alone = judge_heads(predictions, HEADS, bootstrap_samples=200, seed=3)
    assert [found.accuracy_gain for found in alone] == [None, None]
    right = np.arange(80) % 3 == 0
    north, west = judge_heads(predictions.with_baselines({ONE_HEAD: right}), HEADS, bootstrap_samples=200, seed=3)
    own = predictions.for_subset("north")
    expected = paired_gain(own.correct, right[::2], 200, 3, own.units)
    assert (north.accuracy_gain, north.accuracy_gain_interval) == expected
    assert (north.classes, west.classes, north.num_images) == (["cat", "owl"], None, 40)
