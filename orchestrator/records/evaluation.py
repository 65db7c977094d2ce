"""The records of tests and comparisons."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value
from orchestrator.records.recipes import Hyperparameters


class ClassScores(Value):
    """Score the test images of one class against those of the others.

    Undefined measures are None: recall and F1 without images of the class, precision where it was never predicted.
    """

    num_images: int
    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None


class ConfidenceBin(Value):
    """Compare mean confidence with accuracy over the test images whose confidence lies in one of 15 equal bins."""

    num_images: int
    confidence: float
    accuracy: float


class Scores(Value):
    """Score predictions over `num_images` test images; measures that are undefined there are None.

    Macro measures are means over classes; `balanced_accuracy` is the macro recall. `macro_auc_error` bounds how far
    `macro_auc` can be off, 0 where it is from ranks. `by_class` is in the order of the classes.
    """

    num_images: int
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    balanced_accuracy: float | None = None
    balanced_accuracy_interval: tuple[float, float] | None = None
    macro_precision: float | None = None
    macro_f1: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    macro_auc: float | None = None
    macro_auc_error: float | None = None
    cross_entropy: float | None = None
    expected_calibration_error: float | None = None
    expected_calibration_error_interval: tuple[float, float] | None = None
    confusion_matrix: list[list[int]]
    by_class: list[ClassScores] = []
    reliability: list[ConfidenceBin] = []


class Calibration(Value):
    """Say what dividing the logits by `temperature` makes of confidence on the test images.

    Fitted on the `num_images` of validation alone; the predicted classes stay as they are.
    """

    temperature: float
    num_images: int
    cross_entropy: float
    expected_calibration_error: float
    reliability: list[ConfidenceBin]


class ClassNeighbour(Value):
    """Name the class whose mean feature direction is nearest to that of `label`, and how far it is, from 0 to 2."""

    label: str
    nearest: str
    distance: float


class FeatureSeparation(Value):
    """Say how the trained backbone's features, scaled to unit length, lie apart by class on the test images.

    Variances are mean squared distances: of images from the mean of their class, and of class means from the mean of
    all, weighted by images. `mean_distance` is over all pairs of class means, None where there is one class.
    """

    variance_within: float
    variance_between: float
    mean_distance: float | None
    neighbours: list[ClassNeighbour]


class SubsetScores(Scores):
    """Score the test images of one subset over its group's classes."""

    subset: str


class Baseline(Value):
    """Score a control arm trained on the same data and tested on the same images.

    `accuracy_gain` is the recipe's accuracy minus the baseline's, with a paired bootstrap interval. `resources` is what
    its training held.
    """

    name: Literal["fixed_rule", "head_only", "from_scratch"]
    hyperparameters: Hyperparameters
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    seconds: float
    accuracy_gain: float | None
    accuracy_gain_interval: tuple[float, float] | None
    error: str | None = None
    resources: dict[str, float] = {}


class BaselineResult(Record):
    """Hold the outcome of one trained control arm: which test images it got right, in the test table's order."""

    group: str
    name: Literal["fixed_rule", "head_only", "from_scratch"]
    hyperparameters: Hyperparameters
    seconds: float
    correct: list[bool] | None
    error: str | None = None
    resources: dict[str, float] = {}


class Evaluation(Record, Scores):
    """Hold the test results of one group. Rows of the confusion matrix are true classes.

    `num_units` counts what intervals resample: images, those that data.split.keep_together holds together as one.
    `calibration` is None where no temperature could be fitted, `separation` without test images.
    """

    group: str
    classes: list[str]
    subsets: list[SubsetScores]
    baselines: list[Baseline]
    num_units: int
    calibration: Calibration | None
    separation: FeatureSeparation | None
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
