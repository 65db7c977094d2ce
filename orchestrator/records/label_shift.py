"""The records of class frequencies that differ from training's, and of what correcting for them does."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value

ShiftMethod = Literal["confusion", "em"]


class ClassFrequency(Value):
    """Say how frequent a class is estimated to be among images without labels, in an interval, and in the source.

    The intervals of all classes hold the frequencies of where the images come from at once, at 95%. `true` is the
    frequency among the images themselves, None where their labels are not known.
    """

    label: str
    source: float
    estimated: float
    interval: tuple[float, float]
    true: float | None = None


class ShiftScores(Value):
    """Score one set of probabilities of test images."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    cross_entropy: float


class SubsetShift(Value):
    """Compare estimated with true class frequencies, and probabilities before with those after a correction for them.

    `subset` is None for all images of the group. `num_validation` counts the validation images that the estimate and
    the calibration stand on: the subset's own where they suffice, else the group's. `before` are the model's own
    probabilities, `calibrated` those with biases and a temperature fitted on validation, `corrected` these for the
    estimated frequencies. `accuracy_gain` is from `before` to `corrected`, with a paired bootstrap interval. Where
    `is_converged` is false the estimate took more steps than are allowed, and is not the likeliest.
    """

    subset: str | None
    num_images: int
    num_validation: int
    frequencies: list[ClassFrequency]
    is_converged: bool
    before: ShiftScores
    calibrated: ShiftScores
    corrected: ShiftScores
    accuracy_gain: float
    accuracy_gain_interval: tuple[float, float]

    @property
    def holds_truth(self) -> bool:
        """Tell whether every class's true frequency lies in its interval."""
        return all(
            found.true is None or found.interval[0] <= found.true <= found.interval[1] for found in self.frequencies
        )

    @property
    def distance(self) -> float:
        """Give how far the estimated frequencies are from the source's: half the sum of differences, 0 to 1."""
        return sum(abs(found.estimated - found.source) for found in self.frequencies) / 2


class LabelShift(Value):
    """Judge the correction for class frequencies on a group's test images: all of them, and each subset's."""

    method: ShiftMethod
    num_validation: int
    whole: SubsetShift
    subsets: list[SubsetShift]


class ModelValidation(Record):
    """Name, beside a model, the table of its predictions on validation images: what an estimate of frequencies needs.

    `table` is a path below the model's folder, of the form that test predictions have; `digest` is of its bytes.
    `weights_digest` is that of the model that predicted.
    """

    weights_digest: str
    table: str
    digest: str
    num_images: int


class TaskFrequencies(Value):
    """Hold the class frequencies that predictions of a further task were corrected for."""

    task: str
    num_validation: int
    is_converged: bool
    frequencies: list[ClassFrequency]


class PredictedFrequencies(Record):
    """Hold, beside predictions, the class frequencies that they were corrected for; written last.

    `subset` names the one whose validation images alone the estimate stands on; None stands for all. Of several tasks
    this is the first; `tasks` has the others, but for those that no such image has a label for.
    """

    method: ShiftMethod
    subset: str | None = None
    weights_digest: str
    num_images: int
    num_validation: int
    is_converged: bool
    frequencies: list[ClassFrequency]
    tasks: list[TaskFrequencies] = []
