"""Decides which group's search starts the next trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GroupProgress:
    """Count the trials of one group's search: `num_samples` is its budget."""

    group: str
    running: int
    finished: int
    num_samples: int

    @property
    def asked(self) -> int:
        """Count the trials that were started, whatever became of them."""
        return self.running + self.finished

    @property
    def has_budget(self) -> bool:
        """Tell whether another trial may start."""
        return self.asked < self.num_samples


def next_group(progress: Sequence[GroupProgress], *, now: float = 0.0, deadline: float | None = None) -> str | None:
    """Name the group that asks next; None when every budget is spent or the deadline has come.

    The group with the fewest started trials goes first, among those the one with the fewest running, then
    the first in order: all searches advance together, whatever their trials cost. `now` and `deadline` are
    seconds on one clock.
    """
    if deadline is not None and now >= deadline:
        return None
    waiting = [group for group in progress if group.has_budget]
    if not waiting:
        return None
    return min(waiting, key=lambda group: (group.asked, group.running)).group
