"""Bounds every wait on Ray: no progress within the limit becomes an error that says what was missing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.resources import show
from orchestrator.errors import OrchestratorError, WaitTimeoutError

T = TypeVar("T")
POLL_S = 0.5


class _StalledError(Exception):
    """Interrupt a blocking call; an Exception, so that Ray's own clean-up runs on the way out."""


class Watchdog:
    """Interrupt the main thread when nothing has called `beat` for `stall_timeout_s`.

    Used as a context around a blocking call of Ray's in the main thread, which leaves it as WaitTimeoutError.
    The interruption is SIGUSR1: Ctrl-C and its SIGINT stay the user's, and work where SIGINT is ignored.
    """

    def __init__(self, what: str, *, wanted: Mapping[str, float], stall_timeout_s: float) -> None:
        self._what = what
        self._wanted = wanted
        self._limit = stall_timeout_s
        self._last_beat = time.monotonic()
        self._finished = threading.Event()
        self._stalled_with: str | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Tell that progress was made."""
        self._last_beat = time.monotonic()

    def __enter__(self) -> Watchdog:
        self._handler = signal.signal(signal.SIGUSR1, self._interrupt)
        self._last_beat = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._handler)
        if self._stalled_with is not None and not isinstance(error, KeyboardInterrupt):
            raise WaitTimeoutError(
                f"{self._what} must make progress within {self._limit:g} s: wanted {show(self._wanted)}",
                value=f"free now {self._stalled_with}",
                remedy="Free resources, ask for less, or raise cluster.stall_timeout_s.",
            ) from error

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # One that arrives when the block has ended has nothing left to interrupt.
        if not self._finished.is_set():
            raise _StalledError

    def _watch(self) -> None:
        while not self._finished.wait(min(POLL_S, self._limit / 4)):
            if time.monotonic() - self._last_beat > self._limit:
                self._stalled_with = show(ray.available_resources())
                signal.pthread_kill(_main_thread(), signal.SIGUSR1)
                # Again after a while: a loop that goes on after exceptions may have swallowed the first.
                self._last_beat = time.monotonic()


def watched(results: Iterable[T], watchdog: Watchdog) -> Iterator[T]:
    """Pass results on, each one counting as progress."""
    for result in results:
        watchdog.beat()
        yield result


class _Progress:
    """Count the steps of remote work."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self) -> None:
        self._steps += 1

    def steps(self) -> int:
        return self._steps


def start_progress() -> Any:
    """Start an actor that counts the steps that remote work tells it, for a driver that cannot see them."""
    return ray.remote(num_cpus=0)(_Progress).options(scheduling_strategy=beside_driver()).remote()


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """Keep work that coordinates on the driver's node: another node may be lost while the run goes on."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def gather(
    submissions: Sequence[Callable[[], ray.ObjectRef[T]]],
    *,
    progress: Any = None,
    watchdog: Watchdog,
    limit: int | None = None,
) -> Iterator[tuple[int, T | Exception]]:
    """Submit remote calls, at most `limit` at a time, and give (index, result or error) as they finish.

    A result counts as progress, and so do steps told to `progress` where it is given. An interruption cancels what
    still runs.
    """
    queue = list(enumerate(submissions))
    waiting: dict[ray.ObjectRef[T], int] = {}
    seen = 0
    try:
        while queue or waiting:
            while queue and (limit is None or len(waiting) < limit):
                index, submit = queue.pop(0)
                waiting[submit()] = index
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_S)
            steps = _steps(progress, seen)
            if ready or steps != seen:
                seen = steps
                watchdog.beat()
            for reference in ready:
                yield waiting.pop(reference), _result(reference)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=False)


def _result(reference: ray.ObjectRef[T]) -> T | Exception:
    try:
        return ray.get(reference)
    except (RayError, OrchestratorError) as error:
        return error


def _steps(progress: Any, seen: int) -> int:
    if progress is None:
        return seen
    try:
        return int(ray.get(progress.steps.remote(), timeout=10))
    except GetTimeoutError:
        # A busy machine answers late; that is no progress, and no failure.
        return seen


def _main_thread() -> int:
    identity = threading.main_thread().ident
    return 0 if identity is None else identity
