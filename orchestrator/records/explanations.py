"""The records of test images that show what a model looked at."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value

ExplanationMethod = Literal["grad_cam", "attention_rollout"]


class Explanation(Value):
    """Name a test image, its class, the one that was predicted and that one's probability.

    `picture` is the file in the run directory of the image beside its heat map for the predicted class; where the
    image could not be read any more it is None, and `error` says why.
    """

    id: str
    subset: str
    label: str
    predicted: str
    probability: float
    picture: str | None
    error: str | None = None

    @property
    def is_mistake(self) -> bool:
        """Tell whether another class was predicted than the image's own."""
        return self.predicted != self.label


class Explanations(Record):
    """Hold the explained test images of one group, mistakes first, each kind the most confident first.

    `method` is None where nothing was explained; `error` says why where that was not for want of test images.
    """

    group: str
    method: ExplanationMethod | None
    examples: list[Explanation]
    error: str | None = None
