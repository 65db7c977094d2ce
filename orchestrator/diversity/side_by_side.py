"""Solves many small problems of linear algebra side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the work on every item, a thread for each processor, and give the results in the order of the items.

    Each has one thread of BLAS: several for one small problem would wait for each other more than they work. What is to
    run side by side must let go of the interpreter, as numpy.linalg does and scipy.linalg does not.
    """
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))
