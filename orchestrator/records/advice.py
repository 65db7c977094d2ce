"""The record of what would help, by rule from what was measured."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Value

AdviceKind = Literal[
    "missing_classes",
    "missing_attributes",
    "more_of_class",
    "inseparable_class",
    "more_of_subset",
    "varied_samples",
    "more_test_images",
    "more_epochs",
    "enough_epochs",
    "smaller_depth",
    "more_search",
    "enough_search",
    "baseline_suffices",
]


class Advice(Value):
    """Say in one sentence, with its numbers, what would help a group or one of its subsets, or what would not."""

    kind: AdviceKind
    group: str
    subset: str | None = None
    sentence: str
