"""Finds where subsets would fare better than in their groups, by what models get right on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config import ExperimentConfig
from orchestrator.evaluation.transfer import choose_better
from orchestrator.records import Move
from orchestrator.runs import folder_name
from orchestrator.stages.answers import BySubset
from orchestrator.stages.subjects import BySplit, Subject


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """Hold a place that a subset can be moved to, and what speaks for it: what some model gets right there."""

    name: str
    evidence: BySplit
    is_new: bool = False
    without_source: bool = False


def find_moves(config: ExperimentConfig, subjects: Sequence[Subject], elsewhere: Mapping[str, BySubset]) -> list[Move]:
    """Move every subset to the place that serves its validation images best, if beyond its interval.

    `elsewhere` tells by group what its model gets right on validation images of the other groups' subsets: each such
    group is a place. So is a group of its own, by the arm that is trained on the subset alone, and with a source the
    subset's group without it, by the arm that is trained on the target alone. These two arms know no source, so neither
    do the groups that they speak for. Subsets that leave one group for that place share it.
    """
    found = []
    for subject in subjects:
        places = {place.name: place for place in _places(subject, elsewhere, has_source=config.source is not None)}
        evidence = {name: place.evidence for name, place in places.items()}
        chosen = choose_better(subject.compare(config, "val", evidence))
        if chosen is not None:
            place = places[chosen.name]
            move = Move(
                subset=subject.subset,
                origin=subject.group,
                destination=place.name,
                is_new=place.is_new,
                without_source=place.without_source,
                place=chosen,
            )
            found.append(move)
    return found


def _places(subject: Subject, elsewhere: Mapping[str, BySubset], *, has_source: bool) -> list[_Place]:
    """Give the places of a subset in the order in which equals are taken."""
    places = [
        _Place(name=group, evidence={"val": answers[subject.subset]})
        for group, answers in elsewhere.items()
        if subject.subset in answers
    ]
    new = {"subset_only": f"only-{folder_name(subject.subset)}", "target_only": f"{subject.group}-without-source"}
    places += [
        _Place(name=name, evidence=subject.arms[arm], is_new=True, without_source=has_source)
        for arm, name in new.items()
        if arm in subject.arms
    ]
    return places
