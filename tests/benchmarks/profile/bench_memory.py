"""Measures the memory of the whole session while images are profiled, over some of them and over ten times as many."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from command import note
from figures import Figure
from our_pass import catalogued, shards_of, timed_profile
from sizes import Place

_EVERY_S = 0.5


def measure_memory(place: Place) -> Iterator[Figure]:
    """Compare peaks of the proportional set size (Linux) of the driver and all processes below it, Ray's included.

    It counts shared pages once, and pages of mapped files while they are mapped.
    """
    peaks = {}
    for copies in (1, place.sizes.copies):
        data = shards_of(place, copies=copies)
        with catalogued(place, data) as pipeline, _PeakMemory() as memory:
            seconds, _ = timed_profile(pipeline)
        peaks[copies] = memory.peak / 2**30
        parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in memory.parts.most_common(6))
        note(f"{copies} x the data: peak {peaks[copies]:.3f} GiB, {seconds:.1f} s; {parts}")
    yield Figure.of_medians("memory_flatness", ours=[peaks[place.sizes.copies]], peer=[peaks[1]], aim=0.83, unit="GiB")


class _PeakMemory:
    """Sample the memory of this process and all below it, and keep the greatest sum in bytes, also by process."""

    def __init__(self) -> None:
        self.peak = 0
        self.parts: Counter[str] = Counter()
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._finished.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._finished.wait(_EVERY_S):
            parts: Counter[str] = Counter()
            for process in _family(os.getpid()):
                parts["driver" if process == os.getpid() else _name(process)] += _proportional_bytes(process)
            if parts.total() > self.peak:
                self.peak, self.parts = parts.total(), parts


def _family(root: int) -> list[int]:
    """List a process and all below it."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            children.setdefault(_parent(directory), []).append(int(directory.name))
    family = [root]
    for process in family:
        family += children.get(process, [])
    return family


def _parent(directory: Path) -> int:
    try:
        # The name before it stands in brackets and may hold anything.
        return int((directory / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _name(process: int) -> str:
    """Give the first word of a process's command line, which Ray sets to what its worker does."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return "gone"
    return next((Path(word).name for word in command if not word.startswith("-") and "python" not in word), "python")


def _proportional_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
