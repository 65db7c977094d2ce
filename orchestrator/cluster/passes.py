"""Runs the same work on every block of rows: as tasks of Ray Data, or in the driver where it is done before they start.

A task's process loads torch and the backbone first. The driver has loaded them.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray

from orchestrator.cluster.failures import translated
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.watchdog import Watchdog, watched
from orchestrator.cluster.workers import use_threads
from orchestrator.errors import OrchestratorError, TrainingError

T = TypeVar("T")
Work = Callable[[pa.Table], T]

TASKS_START_S = 10.0
"""What tasks need until they work: to load torch, torchvision and a backbone took 10 to 14 s on two cores."""

MOST_HERE_S = 20.0
"""The longest that the driver works itself: it has no second try, and its node may be there for others."""

_MOST_THREADS = 2
_REHEARSED_ROWS = 16
# Nothing opens an image in less than a fifth of a millisecond: of more of them no pass is short.
_MOST_ROWS = int(MOST_HERE_S * _MOST_THREADS / 2e-4)


@dataclass(frozen=True, kw_only=True)
class PassPlan:
    """Say what a pass is called in errors, where it runs, and for how long nothing may happen.

    `expected_s` tells what one CPU is expected to need for all of its work, by default after a rehearsal of it; what is
    infinite the driver never does.
    """

    what: str
    stall_timeout_s: float
    use_gpu: bool = False
    expected_s: Callable[[], float] | None = None

    @property
    def wanted(self) -> dict[str, float]:
        """Give the resources of a task."""
        return {"CPU": 1.0, "GPU": 1.0} if self.use_gpu else {"CPU": 1.0}


def run_pass(blocks: Sequence[pa.Table], work: Work[T], plan: PassPlan) -> Iterator[T]:
    """Do the work on every block, with one thread of torch each, and give the results in the order of the blocks.

    Raises WaitTimeoutError when nothing is done for `stall_timeout_s`, the project's errors as the work raises them,
    and TrainingError for any other.
    """
    if not blocks:
        return
    with (
        translated(plan.what),
        Watchdog(plan.what, wanted=plan.wanted, stall_timeout_s=plan.stall_timeout_s) as watchdog,
    ):
        results = _in_driver(blocks, work, plan) if _is_done_here(blocks, work, plan) else _in_tasks(blocks, work, plan)
        yield from watched(results, watchdog)


def rehearsed_seconds(blocks: Sequence[pa.Table], work: Work[T]) -> float:
    """Tell how long one CPU needs for all blocks, from some rows of two of them; the results are dropped.

    The first row is not timed: it loads what all need. Infinite for more rows than can be short, which are left alone.
    Raises the project's errors as the work does, and TrainingError for any other.
    """
    num_rows: int = sum(block.num_rows for block in blocks)
    if num_rows == 0:
        return 0.0
    if num_rows > _MOST_ROWS:
        return math.inf
    # Some blocks may be cached where others are not: the slower counts.
    rehearsed = [block.slice(0, _REHEARSED_ROWS) for block in (blocks[0], blocks[len(blocks) // 2])]
    with _DaemonThreads(1) as thread:
        _result(thread.submit(_with_one_thread, work, rehearsed[0].slice(0, 1)), "a rehearsal")
        row_s = 0.0
        for rows in rehearsed:
            started = time.perf_counter()
            _result(thread.submit(_with_one_thread, work, rows), "a rehearsal")
            row_s = max(row_s, (time.perf_counter() - started) / rows.num_rows)
    return row_s * num_rows


def is_sooner_here(expected_s: float, *, threads: int, cpus: float) -> bool:
    """Tell whether threads of the driver are done before as many tasks as there are CPUs would be, and soon."""
    return expected_s / threads <= min(MOST_HERE_S, TASKS_START_S + expected_s / max(1.0, cpus))


def _is_done_here(blocks: Sequence[pa.Table], work: Work[T], plan: PassPlan) -> bool:
    if plan.use_gpu:
        return False
    expected_s = rehearsed_seconds(blocks, work) if plan.expected_s is None else plan.expected_s()
    cpus = observe_cluster(elastic=False).total("CPU")
    return is_sooner_here(expected_s, threads=_threads(), cpus=cpus)


def _threads() -> int:
    return min(_MOST_THREADS, os.cpu_count() or 1)


def _in_driver(blocks: Sequence[pa.Table], work: Work[T], plan: PassPlan) -> Iterator[T]:
    """Do the work in threads of this process, a few blocks ahead of what was taken."""
    pending: deque[Future[T]] = deque()
    with _DaemonThreads(_threads()) as threads:
        for block in blocks:
            pending.append(threads.submit(_with_one_thread, work, block))
            if len(pending) > 2 * _threads():
                yield _result(pending.popleft(), plan.what)
        while pending:
            yield _result(pending.popleft(), plan.what)


class _DaemonThreads:
    """Run calls in threads that end with the process: what hangs holds up neither an error nor the exit."""

    def __init__(self, count: int) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_closed = False
        self._threads = [Thread(target=self._serve, daemon=True) for _ in range(count)]

    def __enter__(self) -> _DaemonThreads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_closed = True
        for _ in self._threads:
            self._calls.put(None)

    def submit(self, work: Callable[[Work[T], pa.Table], T], *arguments: Any) -> Future[T]:
        """Queue a call and give the future of its result."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(work(*arguments))
            except BaseException as error:  # whatever ends a call is for who waits for it
                future.set_exception(error)

        self._calls.put(call)
        return future

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            if not self._is_closed:
                call()


def _result(future: Future[T], what: str) -> T:
    # What interrupts the wait is no error of the work.
    wait([future])
    error = future.exception()
    if error is None or isinstance(error, OrchestratorError):
        return future.result()
    trace = "".join(traceback.format_exception(error))
    raise TrainingError(
        f"{what} must not fail", value=f"{type(error).__name__}: {error}", remedy=f"Its trace:\n{trace}"
    ) from error


def _with_one_thread(work: Work[T], block: pa.Table) -> T:
    use_threads(1)
    return work(block)


def _in_tasks(blocks: Sequence[pa.Table], work: Work[T], plan: PassPlan) -> Iterator[T]:
    """Do the work in tasks of one CPU that read what they need: there are no others that they could leave without."""
    done = ray.data.from_arrow(list(blocks)).map_batches(
        _Task(work),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=1 if plan.use_gpu else None,
    )
    # What is done before its turn waits in the object store, where Ray holds tasks back, and not in this process.
    done.context.execution_options.preserve_order = True
    # Its own wrapper keeps no more of an error than its text.
    done.context.raise_original_map_exception = True
    for row in done.iter_rows():
        yield row["result"].value


@dataclass(frozen=True)
class _Task(Generic[T]):
    """Do the work on one block in a worker."""

    work: Work[T]

    def __call__(self, block: pa.Table) -> dict[str, list[_Result[T]]]:
        return {"result": [_Result(_with_one_thread(self.work, block))]}


@dataclass(frozen=True, eq=False)
class _Result(Generic[T]):
    """Hold a result of any type: arrays that stood in a column alone would become tensors of one shape."""

    value: T
