"""Tells which subsets another model serves in the end than their group's first one, and what that gets right."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.evaluation.answers import unpack
from orchestrator.evaluation.paired_answers import Correct
from orchestrator.records import PackedAnswers, Report


def shipped_answers(report: Report) -> dict[str, Correct]:
    """Give what such models get right of their subset's test images, in the catalogue's order.

    A subset is served by what it fell back to or was trained again with, or by a model of its own.
    """
    return {subset: unpack(answers) for subset, answers in _packed(report) if answers is not None}


def _packed(report: Report) -> Iterator[tuple[str, PackedAnswers | None]]:
    for evaluation in report.subset_evaluations:
        yield from ((found.subset, found.test_answers) for found in evaluation.subsets)
    if report.transfer is not None:
        yield from ((found.subset, found.test_answers) for found in report.transfer.subsets)
