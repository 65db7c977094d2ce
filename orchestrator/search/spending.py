"""Decides which group's search gets the next trial, and whether it comes from the shared list or the sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

RACE_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Bound a search: trials of all groups together, seconds of search, and seconds of work of all its trials.

    Each bound holds for the search with its races; None is no bound.
    `floor` trials of each group come before any is stopped for stagnating. A group stagnates when its last
    `patience` finished trials brought nothing better by more than `tolerance`.
    """

    num_trials: int
    seconds: float | None = None
    work_seconds: float | None = None
    floor: int = 8
    patience: int = 6
    tolerance: float = 0.0

    @property
    def race_trials(self) -> int:
        """Give the trials that are kept back for the finalists."""
        return math.floor(self.num_trials * RACE_SHARE)

    @property
    def search_trials(self) -> int:
        """Give the trials that the search itself may start."""
        return self.num_trials - self.race_trials

    @property
    def search_seconds(self) -> float:
        """Give the seconds that the search itself may take."""
        return math.inf if self.seconds is None else self.seconds * (1 - RACE_SHARE)

    @property
    def search_work_seconds(self) -> float:
        """Give the seconds of work that the trials of the search itself may take together."""
        return math.inf if self.work_seconds is None else self.work_seconds * (1 - RACE_SHARE)


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """Hold what is known of one group's search; a closed one starts no more trials, and only counts.

    `queue` has the predicted seconds of listed trials that have not started, in order. `values` are the results of
    finished trials in the order they ended, greater being better, None for failed ones; `seconds` is what they took
    together, and what running ones are predicted to.
    """

    group: str
    queue: Sequence[float]
    running: int
    values: Sequence[float | None]
    seconds: float
    is_closed: bool = False

    @property
    def started(self) -> int:
        """Count the trials that were started, whatever became of them."""
        return self.running + len(self.values)

    def stagnates(self, spending: Spending) -> bool:
        """Tell whether the last `patience` finished trials brought nothing better."""
        if self.started < spending.floor or len(self.values) <= spending.patience:
            return False
        found = [-math.inf if value is None else value for value in self.values]
        before, lately = found[: -spending.patience], found[-spending.patience :]
        return max(lately) <= max(before) + spending.tolerance


@dataclass(frozen=True, kw_only=True)
class Move:
    """Start a trial of a group: the next one of its list, or one that its sampler draws within `seconds`."""

    group: str
    origin: Literal["listed", "sampler"]
    seconds: float


def next_move(groups: Sequence[GroupState], spending: Spending, *, elapsed_s: float) -> Move | None:
    """Choose the next trial; None when the budget does not hold another one.

    First one trial of every group's list; then the lists up to an even share, the cheapest trial first, so that
    groups are compared on the same recipes early. Then every group up to the floor, and then those that do not
    stagnate: always the one that has cost least so far, from its list before its sampler. When all stagnate, all go
    on. `elapsed_s` is search time used, resumes included and downtime not; a trial is only started when its predicted
    seconds fit into what is left.
    """
    if sum(group.started for group in groups) >= spending.search_trials:
        return None
    work_left = spending.search_work_seconds - sum(group.seconds for group in groups)
    room = min(spending.search_seconds - elapsed_s, work_left)
    share = _share(groups, spending)
    candidates = [group for group in groups if not group.is_closed]
    listed = [group for group in candidates if group.queue and group.queue[0] <= room and group.started < share]
    if listed:
        first = [group for group in listed if group.started == 0]
        cheapest = min(first or listed, key=lambda group: (group.queue[0], group.started, group.seconds))
        return Move(group=cheapest.group, origin="listed", seconds=cheapest.queue[0])
    if room <= 0 or not candidates:
        return None
    below_floor = [group for group in candidates if group.started < min(spending.floor, share)]
    moving = [group for group in candidates if not group.stagnates(spending)]
    least = min(below_floor or moving or candidates, key=lambda group: (group.seconds, group.started))
    if least.queue and least.queue[0] <= room:
        return Move(group=least.group, origin="listed", seconds=least.queue[0])
    return Move(group=least.group, origin="sampler", seconds=room)


def _share(groups: Sequence[GroupState], spending: Spending) -> int:
    """Give an even share of the search's trials, rounded up."""
    return math.ceil(spending.search_trials / max(1, len(groups)))
