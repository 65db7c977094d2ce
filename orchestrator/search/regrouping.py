"""Decides which subsets move to another group, and what is trained again for that, within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.records import Move


@dataclass(frozen=True, kw_only=True)
class KnownGroup:
    """Hold a group as it was trained: its subsets with their training images, and what the training took."""

    name: str
    num_train: Mapping[str, int]
    seconds: float

    @property
    def image_s(self) -> float:
        """Give the seconds of its training for each training image."""
        return self.seconds / max(1, sum(self.num_train.values()))


@dataclass(frozen=True, kw_only=True)
class PlannedGroup:
    """Say which group to train again, by the recipe of the group `recipe_of`, and how long that is to take.

    `without_source` says that it is trained on the target alone, whatever the other groups are trained together with.
    """

    name: str
    subsets: tuple[str, ...]
    recipe_of: str
    predicted_s: float
    without_source: bool = False


@dataclass(frozen=True, kw_only=True)
class RegroupingPlan:
    """Hold the moves that fit a budget, those that do not, and the groups to train for the former."""

    moves: tuple[Move, ...]
    left_out: tuple[Move, ...]
    groups: tuple[PlannedGroup, ...]


def plan_regrouping(
    moves: Sequence[Move], groups: Sequence[KnownGroup], *, budget_left_s: float | None
) -> RegroupingPlan:
    """Take the moves that gain most, as long as training all groups that they change fits; None bounds nothing.

    A training is predicted to take what the group's own took, in proportion to training images; a new group takes the
    recipe and the speed of the group that its subsets leave, and all that leave one for the same new group share that.
    A group that all subsets leave is not trained.
    """
    taken: tuple[Move, ...] = ()
    left_out: tuple[Move, ...] = ()
    for move in sorted(moves, key=lambda move: move.place.gain):
        changed = _changed((*taken, move), groups)
        if budget_left_s is None or sum(group.predicted_s for group in changed) <= budget_left_s:
            taken = (*taken, move)
        else:
            left_out = (*left_out, move)
    return RegroupingPlan(moves=taken, left_out=left_out, groups=_changed(taken, groups))


def _changed(moves: Sequence[Move], groups: Sequence[KnownGroup]) -> tuple[PlannedGroup, ...]:
    """Give the groups that moves change, as they are afterwards: the known ones, then the new ones."""
    known = {group.name: group for group in groups}
    num_train = {subset: count for group in groups for subset, count in group.num_train.items()}
    leaving = {move.subset for move in moves}
    touched = {move.origin for move in moves} | {move.destination for move in moves}
    found = []
    for group in groups:
        arriving = [move.subset for move in moves if move.destination == group.name]
        subsets = [subset for subset in group.num_train if subset not in leaving] + arriving
        if group.name in touched and subsets:
            found.append(_planned(group.name, subsets, group, num_train))
    for destination in dict.fromkeys(move.destination for move in moves if move.is_new):
        sharing = [move for move in moves if move.destination == destination]
        planned = _planned(destination, [move.subset for move in sharing], known[sharing[0].origin], num_train)
        found.append(replace(planned, without_source=sharing[0].without_source))
    return tuple(found)


def _planned(name: str, subsets: Sequence[str], recipe_of: KnownGroup, num_train: Mapping[str, int]) -> PlannedGroup:
    return PlannedGroup(
        name=name,
        subsets=tuple(sorted(subsets)),
        recipe_of=recipe_of.name,
        predicted_s=recipe_of.image_s * sum(num_train[subset] for subset in subsets),
    )
