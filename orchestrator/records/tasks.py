"""The values that name a task: a column of labels that a head of a model predicts."""

from __future__ import annotations

from orchestrator.records.base import Value


class TaskClasses(Value):
    """Name a task after its column of labels, and its classes in the order of the model's outputs."""

    task: str
    classes: list[str]
