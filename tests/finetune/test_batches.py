import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import plan_batches, share

num_samples = st.integers(1, 400)
batch_sizes = st.integers(2, 64)
world_sizes = st.integers(1, 5)


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
