"""A pass gives the same results in the driver as in tasks, in the order of its blocks, and raises the same errors."""

from __future__ import annotations

import math
import os
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from orchestrator.cluster.passes import MOST_HERE_S, PassPlan, is_sooner_here, rehearsed_seconds, run_pass
from orchestrator.errors import DataError, TrainingError, WaitTimeoutError

BLOCKS = [pa.table({"value": list(range(start, start + 3))}) for start in range(0, 30, 3)]
HERE, TASKS = 0.0, math.inf


def a_plan(expected_s: float, *, stall_timeout_s: float = 60.0) -> PassPlan:
    return PassPlan(what="the pass", stall_timeout_s=stall_timeout_s, expected_s=lambda: expected_s)


# Ray's workers cannot import this module: what runs there is pickled with its code, as functions within functions are.
def summing() -> partial[tuple[int, int, int]]:
    def work(factor: int, block: pa.Table) -> tuple[int, int, int]:
        values = block.column("value").to_pylist()
        # Later blocks are done first.
        time.sleep(0.02 * max(0, 5 - values[0]))
        return factor * sum(values), torch.get_num_threads(), os.getpid()

    return partial(work, 2)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("expected_s", [HERE, TASKS])
def test_results_come_in_the_order_of_the_blocks_from_one_thread_each(expected_s: float) -> None:
    found = list(run_pass(BLOCKS, summing(), a_plan(expected_s)))
    assert [total for total, _, _ in found] == [2 * sum(block.column("value").to_pylist()) for block in BLOCKS]
    assert {threads for _, threads, _ in found} == {1}
    assert (os.getpid() in {process for _, _, process in found}) == (expected_s == HERE)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("expected_s", [HERE, TASKS])
def test_errors_of_the_project_arrive_as_they_are_and_others_name_the_pass(expected_s: float) -> None:
    def refuse(block: pa.Table) -> int:
        raise DataError("an image must be readable", value="x.jpg")

    def fail(block: pa.Table) -> int:
        raise ValueError("no such layout")

    with pytest.raises(DataError, match=r"an image must be readable, got x.jpg"):
        list(run_pass(BLOCKS, refuse, a_plan(expected_s)))
    with pytest.raises(TrainingError, match=r"the pass must not fail.*no such layout"):
        list(run_pass(BLOCKS, fail, a_plan(expected_s)))


@pytest.mark.usefixtures("ray_cluster")
def test_work_that_hangs_in_the_driver_ends_with_an_error(tmp_path: Path) -> None:
    def hang(block: pa.Table) -> int:
        while not (tmp_path / "end").exists():
            time.sleep(0.05)
        return 0

    try:
        with pytest.raises(WaitTimeoutError, match=r"the pass must make progress within 0\.5 s"):
            list(run_pass(BLOCKS, hang, a_plan(HERE, stall_timeout_s=0.5)))
    finally:
        (tmp_path / "end").touch()


def test_without_blocks_nothing_is_started() -> None:
    assert list(run_pass([], lambda block: pytest.fail("work was done"), a_plan(TASKS))) == []
    assert rehearsed_seconds([], lambda block: pytest.fail("work was done")) == 0.0


def test_a_rehearsal_leaves_loading_out_and_counts_every_row() -> None:
    seen: list[int] = []

    def work(block: pa.Table) -> None:
        if not seen:
            time.sleep(0.3)
        seen.append(block.num_rows)
        time.sleep(0.01 * block.num_rows)

    blocks = [pa.table({"value": list(range(20))})] * 5
    assert 1.0 <= rehearsed_seconds(blocks, work) < 2.0
    assert seen == [1, 16, 16]


def test_so_many_rows_that_no_pass_over_them_is_short_are_not_rehearsed() -> None:
    blocks = [pa.table({"value": list(range(300_000))})]
    assert math.isinf(rehearsed_seconds(blocks, lambda block: pytest.fail("work was done")))


@pytest.mark.parametrize(
    ("expected_s", "cpus", "is_sooner"),
    [
        (20.0, 2.0, True),  # as many tasks as threads: only their start is lost
        (2 * MOST_HERE_S + 0.1, 2.0, False),  # too long for the driver
        (24.0, 100.0, False),  # a hundred tasks would be done by then
        (19.0, 100.0, True),
        (0.0, 0.0, True),
        (math.inf, 2.0, False),
    ],
)
def test_the_driver_works_where_it_is_done_sooner_and_soon(expected_s: float, cpus: float, is_sooner: bool) -> None:
    assert is_sooner_here(expected_s, threads=2, cpus=cpus) == is_sooner
