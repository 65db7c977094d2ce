"""Says now and then how far a long pass is: rows, rows a second, bad rows, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Count the rows of a pass, and say a line about them at most every `every_s` seconds and at the end.

    `what` begins every line, `unit` says what the rows are; without a `total` no time left is known.
    """

    def __init__(
        self,
        what: str,
        *,
        say: Callable[[str], None],
        total: int | None = None,
        unit: str = "images",
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._say = say
        self._total = total
        self._unit = unit
        self._every_s = every_s
        self._clock = clock
        self._started = self._said = clock()
        self._rows = 0
        self._bad = 0

    def add(self, rows: int, bad: int = 0) -> None:
        """Count rows that are done, the `bad` ones among them."""
        self._rows += rows
        self._bad += bad
        now = self._clock()
        if now - self._said >= self._every_s:
            self._said = now
            self._say(f"{self._what}: {self._done()}{self._left(now - self._started)}")

    def finish(self) -> None:
        """Say what the whole pass was."""
        self._say(f"{self._what}: {self._done()}, in {_duration(self._clock() - self._started)}")

    def follow(self, results: Iterable[T], count: Callable[[T], tuple[int, int]]) -> Iterator[T]:
        """Pass results on, counting the (rows, bad rows) of each; the end of the results is the end of the pass."""
        for result in results:
            self.add(*count(result))
            yield result
        self.finish()

    def _done(self) -> str:
        of_total = "" if self._total is None or self._rows == self._total else f" of {self._total:,}"
        seconds = self._clock() - self._started
        rate = f", {self._rows / seconds:,.0f}/s" if seconds > 0 else ""
        return f"{self._rows:,}{of_total} {self._unit}{rate}, {self._bad:,} bad"

    def _left(self, seconds: float) -> str:
        if self._total is None or self._rows == 0:
            return ""
        return f", {_duration(seconds * max(0, self._total - self._rows) / self._rows)} left"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
