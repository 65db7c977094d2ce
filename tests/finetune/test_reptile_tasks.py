import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.finetune.reptile_tasks import Task, TaskPool, draw_batches

# Subset 0 has the classes 0, 1 and 2, subset 1 has 1 and 2, subset 2 has the class 0 alone, which is no task.
SUBSETS = np.repeat([0, 0, 0, 1, 1, 2], [6, 6, 1, 8, 4, 9])
LABELS = np.repeat([0, 1, 2, 1, 2, 0], [6, 6, 1, 8, 4, 9])


def a_pool(*, least: int = 1) -> TaskPool:
    order = np.random.default_rng(0).permutation(len(LABELS))
    pool = TaskPool.of(SUBSETS[order], LABELS[order], least=least)
    return TaskPool(tuple(tuple(np.sort(order[members]) for members in classes) for classes in pool.subsets))


def rng(number: int = 0) -> np.random.Generator:
    return np.random.default_rng([5, number])


def classes_of(task: Task) -> list[NDArray[np.int64]]:
    return [task.positions[task.targets == target] for target in range(task.num_classes)]


def test_a_pool_holds_the_subsets_that_have_two_classes() -> None:
    assert [[len(members) for members in classes] for classes in a_pool().subsets] == [[6, 6, 1], [8, 4]]
    assert [[len(members) for members in classes] for classes in a_pool(least=2).subsets] == [[6, 6], [8, 4]]
    assert len(TaskPool.of(np.zeros(0, np.int64), np.zeros(0, np.int64), least=1)) == 0


def test_a_task_is_of_one_subset_and_its_targets_are_its_classes() -> None:
    seen = set()
    for number in range(80):
        task = a_pool().draw_task(2, 3, rng(number))
        assert task.num_classes == 2 and len(np.unique(task.positions)) == len(task.positions)
        assert len(set(SUBSETS[task.positions])) == 1
        labels = [set(LABELS[members].tolist()) for members in classes_of(task)]
        assert all(len(found) == 1 for found in labels) and labels[0] != labels[1]
        assert all(1 <= len(members) <= 3 for members in classes_of(task))
        seen.add((int(SUBSETS[task.positions[0]]), *(label for found in labels for label in found)))
    assert len(seen) == 8, "every pair of classes of a subset, either one first"


def test_without_bounds_a_task_is_a_whole_subset() -> None:
    sizes = {len(a_pool().draw_task(None, None, rng(number)).positions) for number in range(20)}
    assert sizes == {13, 12}


def test_a_task_depends_on_its_generator_alone() -> None:
    one, same, other = (a_pool().draw_task(2, 3, rng(number)) for number in (1, 1, 2))
    np.testing.assert_array_equal(one.positions, same.positions)
    assert one.positions.tolist() != other.positions.tolist()


@pytest.mark.parametrize("shots", [None, 1, 5])
def test_an_episode_tests_on_other_samples_of_the_same_classes(shots: int | None) -> None:
    for number in range(20):
        episode = a_pool(least=2).draw_episode(None, shots, rng(number))
        assert not set(episode.support.positions) & set(episode.queries.positions)
        for support, queries in zip(classes_of(episode.support), classes_of(episode.queries), strict=True):
            assert set(LABELS[support]) == set(LABELS[queries])
            count = len(support) + len(queries)
            assert len(support) == min(count // 2, shots or count)


def test_an_episode_tests_on_at_most_fifteen_samples_of_a_class() -> None:
    pool = TaskPool.of(np.zeros(80, np.int64), np.arange(80) % 2, least=2)
    episode = pool.draw_episode(2, 5, rng())
    assert (len(episode.support.positions), len(episode.queries.positions)) == (10, 30)


@pytest.mark.parametrize(("count", "size", "sizes"), [(7, 10, {7}), (25, 10, {12, 13}), (30, 10, {10}), (19, 10, {19})])
def test_batches_show_every_sample_before_any_again(count: int, size: int, sizes: set[int]) -> None:
    batches = draw_batches(count, size, 9, rng())
    assert len(batches) == 9 and {len(batch) for batch in batches} == sizes
    seen = np.bincount(np.concatenate(batches), minlength=count)
    assert seen.max() - seen.min() <= 1
    assert all(len(np.unique(batch)) == len(batch) for batch in batches)
