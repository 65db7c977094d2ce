"""What a search asks a worker to do. Light to import: every worker process does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.records import Hyperparameters, RaceRun


@dataclass(frozen=True, kw_only=True)
class Member:
    """Hold one trial of an assignment: its number in the group's study, None in a race."""

    name: str
    number: int | None
    hyperparameters: Hyperparameters


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Hold what one worker does next: a trial, several heads at once, or a finalist's run on a re-split.

    `seen` has, for heads, what trials of the group had reached at each rung: they are stopped where they train.
    """

    kind: Literal["trial", "heads", "race"]
    group: str
    members: tuple[Member, ...]
    seconds: float
    race: RaceRun | None = None
    seen: Mapping[float, tuple[float, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name the assignment by its first member."""
        return self.members[0].name
