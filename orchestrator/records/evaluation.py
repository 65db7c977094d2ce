"""The records of tests and comparisons."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value
from orchestrator.records.recipes import Hyperparameters


class Scores(Value):
    """Score predictions over `num_images` test images; measures that are undefined there are None."""

    num_images: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    macro_f1: float | None
    macro_auc: float | None
    cross_entropy: float | None
    confusion_matrix: list[list[int]]


class SubsetScores(Scores):
    """Score the test images of one subset over its group's classes."""

    subset: str


class Baseline(Value):
    """Score a control arm trained on the same data and tested on the same images.

    `accuracy_gain` is the recipe's accuracy minus the baseline's, with a paired bootstrap interval.
    """

    name: Literal["fixed_rule", "head_only", "from_scratch"]
    hyperparameters: Hyperparameters
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    seconds: float
    accuracy_gain: float | None
    accuracy_gain_interval: tuple[float, float] | None
    error: str | None = None


class BaselineResult(Record):
    """Hold the outcome of one trained control arm: which test images it got right, in the test table's order."""

    group: str
    name: Literal["fixed_rule", "head_only", "from_scratch"]
    hyperparameters: Hyperparameters
    seconds: float
    correct: list[bool] | None
    error: str | None = None


class Evaluation(Record, Scores):
    """Hold the test results of one group. Rows of the confusion matrix are true classes."""

    group: str
    classes: list[str]
    subsets: list[SubsetScores]
    baselines: list[Baseline]
    predictions: str
    seconds: float


class PooledComparison(Value):
    """Compare all groups' recipes with one baseline over the pooled test images, paired by image."""

    baseline: str
    num_images: int
    accuracy: float
    baseline_accuracy: float
    accuracy_gain: float
    accuracy_gain_interval: tuple[float, float]
