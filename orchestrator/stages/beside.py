"""Charges subsets with the models that are trained beside their group's: their own, arms, and what took its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config import ResourceCosts
from orchestrator.records import Arm, BesidePart, Groups, Report, Spending, Transfer
from orchestrator.stages.spendings import add_up, priced, scaled

Beside = dict[BesidePart, Spending]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Hold what one training spent, and the subsets that it was for."""

    part: BesidePart
    spent: Spending
    subsets: Sequence[str]


def beside_models(report: Report, training: Mapping[str, int], prices: ResourceCosts | None) -> dict[str, Beside]:
    """Give by subset what was spent on models beside its group's; none for a subset on which nothing was.

    `training` counts the training images of every subset: those that a model is for share what it took by these. What
    keeping a model took is charged to the subsets that fell back to it.
    """
    works = [*_subset_models(report, prices)]
    if report.transfer is not None:
        works += [*_arms(report.transfer, report.groups, prices), *_regrouped(report.transfer, prices)]
    found: dict[str, list[Beside]] = {}
    for work in works:
        if work.spent.seconds == 0:
            continue
        total = sum(training.get(subset, 0) for subset in work.subsets)
        for subset in work.subsets:
            share = training.get(subset, 0) / total if total else 1 / len(work.subsets)
            found.setdefault(subset, []).append({work.part: scaled(work.spent, share)})
    return {subset: add_parts(parts) for subset, parts in found.items()}


def add_parts(besides: Sequence[Beside]) -> Beside:
    """Add up what was spent, by part."""
    found: dict[BesidePart, list[Spending]] = {}
    for beside in besides:
        for part, spent in beside.items():
            found.setdefault(part, []).append(spent)
    return {part: add_up(*spendings) for part, spendings in found.items()}


def _subset_models(report: Report, prices: ResourceCosts | None) -> Iterator[_Work]:
    for evaluation in report.subset_evaluations:
        for found in evaluation.subsets:
            spent = priced(found.seconds * found.num_workers, found.worker_resources, prices)
            yield _Work(part="subset_models", spent=spent, subsets=[found.subset])


def _arms(transfer: Transfer, groups: Groups, prices: ResourceCosts | None) -> Iterator[_Work]:
    for arm in transfer.arms:
        subsets = _subsets_of(arm, groups)
        yield _Work(part="arms", spent=priced(arm.seconds, arm.resources, prices), subsets=subsets)
        takers = [
            found.subset
            for found in transfer.subsets
            if found.action == "fallback" and found.taken == arm.name and found.subset in subsets
        ]
        again = priced(arm.seconds_again, arm.resources, prices)
        yield _Work(part="retraining", spent=again, subsets=takers or subsets)


def _subsets_of(arm: Arm, groups: Groups) -> list[str]:
    if arm.subset is not None:
        return [arm.subset]
    return [subset for group in groups.groups if arm.group in (None, group.name) for subset in group.subsets]


def _regrouped(transfer: Transfer, prices: ResourceCosts | None) -> Iterator[_Work]:
    """Charge what was trained again, also where the old models were kept in the end."""
    for model in transfer.regrouping.models if transfer.regrouping is not None else []:
        spent = priced(model.seconds * model.num_workers, model.worker_resources, prices)
        yield _Work(part="retraining", spent=spent, subsets=model.subsets)
