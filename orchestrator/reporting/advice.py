"""Puts the advice of all rules together: each speaks where its numbers are beyond their noise alone."""

from __future__ import annotations

from orchestrator.records import Advice, Report
from orchestrator.reporting import data_advice, training_advice
from orchestrator.reporting.group_records import GroupRecords

_OF_GROUPS = (
    data_advice.weak_classes,
    data_advice.weak_subsets,
    training_advice.overfitting,
    training_advice.longer_training,
    training_advice.smaller_depth,
    training_advice.more_search,
    training_advice.baseline_suffices,
    data_advice.untold_subsets,
)


def advise(report: Report) -> list[Advice]:
    """Give what the records of a run advise, in the order of groups: data first, then training, then what is untold."""
    of_data = [*data_advice.missing_classes(report), *data_advice.missing_attributes(report)]
    advice: list[Advice] = []
    for group in report.groups.groups:
        advice += [found for found in of_data if found.group == group.name]
        records = GroupRecords.of(report, group)
        advice += [found for rule in _OF_GROUPS for found in rule(records)]
    return advice
