import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import count_draws, plan_balanced_batches, plan_batches, share

num_samples = st.integers(1, 400)
batch_sizes = st.integers(2, 64)
world_sizes = st.integers(1, 5)
# Not every class has samples.
label_lists = st.lists(st.sampled_from([0, 1, 2, 2, 2, 2, 2, 5, 7]), min_size=1, max_size=200)


@given(num_samples, batch_sizes, st.integers(0, 2**32 - 1), st.integers(1, 100), world_sizes)
def test_every_sample_is_in_one_batch(count: int, batch_size: int, seed: int, epoch: int, world_size: int) -> None:
    batches = plan_batches(count, batch_size, seed, epoch, world_size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert all(batch.dtype == np.int64 for batch in batches)


@given(num_samples, batch_sizes, world_sizes)
def test_batches_are_full_but_for_a_last_one_that_is_not_tiny(count: int, batch_size: int, world_size: int) -> None:
    sizes = [len(batch) for batch in plan_batches(count, batch_size, 0, 1, world_size)]
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] < batch_size + 2 * world_size
    assert len(sizes) == 1 or sizes[-1] >= min(2 * world_size, batch_size)


@given(num_samples, world_sizes)
def test_shares_are_disjoint_complete_and_near_equal(count: int, world_size: int) -> None:
    batch = np.arange(count, dtype=np.int64)
    shares = [share(batch, rank, world_size) for rank in range(world_size)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    sizes = [len(part) for part in shares]
    assert max(sizes) - min(sizes) <= 1


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int, **rest: int) -> list[int]:
        return np.concatenate(plan_batches(50, 8, seed, epoch, **rest)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) == order(1, 2, world_size=3)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_no_samples_are_an_error() -> None:
    with pytest.raises(TrainingError, match="there must be training samples, got 0"):
        plan_batches(0, 8, 0, 1)


def spread(labels: NDArray[np.int64], positions: NDArray[np.int64]) -> int:
    """Give by how much the counts of two classes that have samples differ among these positions."""
    return int(np.ptp([(labels[positions] == label).sum() for label in np.unique(labels)]))


@given(label_lists, batch_sizes, st.integers(0, 2**32 - 1), st.integers(1, 100), world_sizes)
def test_balanced_classes_differ_by_one_at_most_in_epoch_batch_and_rank(
    found: list[int], batch_size: int, seed: int, epoch: int, world_size: int
) -> None:
    labels = np.array(found, dtype=np.int64)
    batches = plan_balanced_batches(labels, batch_size, seed, epoch, world_size)
    shares = [share(batch, rank, world_size) for batch in batches for rank in range(world_size)]
    assert all(spread(labels, part) <= 1 for part in [np.concatenate(batches), *batches, *shares])


@given(label_lists, batch_sizes, world_sizes)
def test_balanced_batches_are_as_large_as_plain_ones(found: list[int], batch_size: int, world_size: int) -> None:
    balanced = plan_balanced_batches(np.array(found, dtype=np.int64), batch_size, 0, 1, world_size)
    plain = plan_batches(len(found), batch_size, 0, 1, world_size)
    assert [len(batch) for batch in balanced] == [len(batch) for batch in plain]
    assert all(batch.dtype == np.int64 for batch in balanced)


@given(label_lists, batch_sizes, st.integers(1, 100))
def test_balanced_samples_repeat_only_when_their_class_is_used_up(
    found: list[int], batch_size: int, epoch: int
) -> None:
    labels = np.array(found, dtype=np.int64)
    times = np.bincount(np.concatenate(plan_balanced_batches(labels, batch_size, 3, epoch)), minlength=len(labels))
    assert all(np.ptp(times[labels == label]) <= 1 for label in np.unique(labels))


@given(label_lists, batch_sizes)
def test_counts_of_draws_add_up_to_the_epoch(found: list[int], batch_size: int) -> None:
    labels = np.array(found, dtype=np.int64)
    draws = count_draws(plan_balanced_batches(labels, batch_size, 3, 1), labels)
    assert [entry.label for entry in draws] == sorted(set(found))
    assert [entry.samples for entry in draws] == [found.count(entry.label) for entry in draws]
    assert sum(entry.draws for entry in draws) == len(found)
    assert all(entry.shown == min(entry.samples, entry.draws) for entry in draws)
    assert all(entry.repeats == max(0, entry.draws - entry.samples) for entry in draws)


def test_a_large_class_shows_all_its_samples_over_the_epochs() -> None:
    labels = np.array([0] * 40 + [1] * 10, dtype=np.int64)
    shown = {
        int(position)
        for epoch in range(1, 11)
        for position in np.concatenate(plan_balanced_batches(labels, 8, 0, epoch))
    }
    assert len(shown) == 50


def test_the_balanced_order_depends_on_seed_and_epoch_alone() -> None:
    labels = np.arange(60, dtype=np.int64) % 3

    def order(seed: int, epoch: int, **rest: int) -> list[int]:
        return np.concatenate(plan_balanced_batches(labels, 8, seed, epoch, **rest)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) == order(1, 2, world_size=3)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_no_samples_cannot_be_balanced() -> None:
    with pytest.raises(TrainingError, match="there must be training samples, got 0"):
        plan_balanced_batches(np.zeros(0, dtype=np.int64), 8, 0, 1)
