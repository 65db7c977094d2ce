"""Bounds every wait on Ray: no progress within the limit becomes an error that says what was missing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import ray

from orchestrator.cluster.resources import show
from orchestrator.errors import WaitTimeoutError

T = TypeVar("T")
POLL_S = 0.5


class Watchdog:
    """Interrupt the main thread when nothing has called `beat` for `stall_timeout_s`.

    Used as a context around a blocking call of Ray's in the main thread. The interruption arrives there as
    KeyboardInterrupt and leaves the context as WaitTimeoutError; a user's own Ctrl-C stays what it is.
    """

    def __init__(self, what: str, *, wanted: Mapping[str, float], stall_timeout_s: float) -> None:
        self._what = what
        self._wanted = wanted
        self._limit = stall_timeout_s
        self._last_beat = time.monotonic()
        self._finished = threading.Event()
        self._barked = threading.Event()
        self._report = ""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Tell that progress was made."""
        self._last_beat = time.monotonic()

    def __enter__(self) -> Watchdog:
        self._handler = signal.getsignal(signal.SIGINT)
        self._last_beat = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            # The interruption may arrive just after the call that it was meant for.
            if not self._barked.is_set():
                raise
        # Ray Train puts its own handler in place for a run and leaves it there.
        signal.signal(signal.SIGINT, self._handler)
        if self._barked.is_set():
            raise self.error() from error

    def error(self) -> WaitTimeoutError:
        """Give the error that says what was waited for, what it wanted and what is free."""
        return WaitTimeoutError(
            f"{self._what} must make progress within {self._limit:g} s: wanted {show(self._wanted)}",
            value=f"free now {self._report or _free()}",
            remedy="Free resources, ask for less, or raise cluster.stall_timeout_s.",
        )

    def _watch(self) -> None:
        while not self._finished.wait(min(POLL_S, self._limit / 4)):
            if time.monotonic() - self._last_beat > self._limit:
                self._report = _free()
                self._barked.set()
                signal.pthread_kill(_main_thread(), signal.SIGINT)
                return


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
    return ray.remote(num_cpus=0)(_Progress).remote()


def gather(references: list[ray.ObjectRef[T]], *, progress: Any, watchdog: Watchdog) -> Iterator[tuple[int, T]]:
    """Give (index, result) of remote calls as they finish; steps told to `progress` count as progress.

    An interruption cancels what still runs. Errors of a call are raised as they are.
    """
    waiting = {reference: index for index, reference in enumerate(references)}
    seen = 0
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_S)
            steps = ray.get(progress.steps.remote(), timeout=60)
            if ready or steps != seen:
                seen = steps
                watchdog.beat()
            for reference in ready:
                yield waiting.pop(reference), ray.get(reference)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=False)


def _free() -> str:
    return show(ray.available_resources())


def _main_thread() -> int:
    identity = threading.main_thread().ident
    return 0 if identity is None else identity
