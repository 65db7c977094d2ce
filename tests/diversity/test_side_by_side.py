"""Work on many small problems at once."""

from __future__ import annotations

import time

import pytest
from threadpoolctl import threadpool_info

from orchestrator.diversity.side_by_side import side_by_side


def test_results_have_the_order_of_the_items_whichever_ends_first() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 * (3 - item % 4))
        return item * item

    assert side_by_side(work, range(9)) == [item * item for item in range(9)]


def test_each_problem_has_one_thread_of_blas() -> None:
    def threads(item: int) -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    assert side_by_side(threads, range(3)) == [{1}] * 3


def test_an_error_of_the_work_is_raised() -> None:
    def work(item: int) -> float:
        return 1 / item

    with pytest.raises(ZeroDivisionError):
        side_by_side(work, [2, 1, 0])
