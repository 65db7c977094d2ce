"""The records of tests and comparisons."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.records.base import Record, Value
from orchestrator.records.label_shift import LabelShift, SubsetShift
from orchestrator.records.multi_label import MultiLabelScores
from orchestrator.records.recipes import Hyperparameters
from orchestrator.records.sources import OutlierScores

BaselineName = Literal["fixed_rule", "head_only", "from_scratch", "target_only", "one_head"]


class ClassScores(Value):
    """Score the test images of one class against those of the others.

    Undefined measures are None: recall and F1 without images of the class, precision where it was never predicted.
    `num_units` counts them with those that are kept together as one; None where all are alone, or are too many to tell.
    """

    num_images: int
    num_units: int | None = None
    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None
    f1_interval: tuple[float, float] | None = None
    auc_interval: tuple[float, float] | None = None


class ConfidenceBin(Value):
    """Compare mean confidence with accuracy over the test images whose confidence lies in one of 15 equal bins."""

    num_images: int
    confidence: float
    accuracy: float


class Scores(Value):
    """Score predictions over `num_images` test images; measures that are undefined there are None.

    Macro measures are means over classes; `balanced_accuracy` is the macro recall. Of many images areas under curves
    have no interval. `macro_auc_error` bounds how far `macro_auc` can be off, 0 where it is from ranks. `by_class` is
    in the order of the classes. Where images have any number of labels, the accuracy is the share of images all of
    whose labels are right at the threshold 0.5, the cross-entropy the mean binary one; there is no confusion matrix,
    and `multi_label` has what else there is.
    """

    num_images: int
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    balanced_accuracy: float | None = None
    balanced_accuracy_interval: tuple[float, float] | None = None
    macro_precision: float | None = None
    macro_precision_interval: tuple[float, float] | None = None
    macro_f1: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    macro_auc: float | None = None
    macro_auc_error: float | None = None
    macro_auc_interval: tuple[float, float] | None = None
    cross_entropy: float | None = None
    cross_entropy_interval: tuple[float, float] | None = None
    expected_calibration_error: float | None = None
    expected_calibration_error_interval: tuple[float, float] | None = None
    confusion_matrix: list[list[int]]
    by_class: list[ClassScores] = []
    reliability: list[ConfidenceBin] = []
    multi_label: MultiLabelScores | None = None


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
    `class_means` is the path of their table, below the run directory, None in records from before there was one.
    """

    variance_within: float
    variance_between: float
    mean_distance: float | None
    neighbours: list[ClassNeighbour]
    class_means: str | None = None


class EpisodeScores(Value):
    """Say what features are worth where few images tell the classes: mean accuracies over episodes of test images.

    `tuned` is by the features of the group's model, `pretrained` by those that it started from, `gain` the difference
    on the same episodes. Intervals are 1.96 standard errors over episodes. All are None where fewer than `ways` of the
    classes have enough images; `num_classes` counts those that have.
    """

    ways: int
    shots: int
    queries: int
    count: int
    num_classes: int
    tuned: float | None = None
    tuned_interval: tuple[float, float] | None = None
    pretrained: float | None = None
    pretrained_interval: tuple[float, float] | None = None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None


class SubsetScores(Scores):
    """Score the test images of one subset over its group's classes."""

    subset: str


class TaskScores(Scores):
    """Score the test images that are labelled for one further task, over its classes.

    `predictions` is the path of their table below the run directory. `label_shift` is None unless the experiment asks
    for it, and where no validation image has a label for the task.
    """

    task: str
    classes: list[str]
    predictions: str
    label_shift: LabelShift | None = None


class HeadScores(Value):
    """Compare a subset's own head with one head for all subsets on the subset's test images.

    `classes` are those of the head; None where the subset has none, having no training images, and all heads judge its
    images together. The gain is None where there is no such model to compare with. `label_shift` is over the head's
    classes; None unless the experiment asks for it, without a head, and without validation images.
    """

    subset: str
    classes: list[str] | None
    num_images: int
    accuracy_gain: float | None = None
    accuracy_gain_interval: tuple[float, float] | None = None
    label_shift: SubsetShift | None = None


class Baseline(Value):
    """Score a control arm trained on the same data and tested on the same images.

    `accuracy_gain` is the recipe's accuracy minus the baseline's, with a paired bootstrap interval. `resources` is what
    its training held. Where images have any number of labels, mean average precisions are compared too;
    `mean_average_precision_error` bounds how far the baseline's can be off, 0 where it is from ranks.
    """

    name: BaselineName
    hyperparameters: Hyperparameters
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    seconds: float
    accuracy_gain: float | None
    accuracy_gain_interval: tuple[float, float] | None
    error: str | None = None
    resources: dict[str, float] = {}
    mean_average_precision: float | None = None
    mean_average_precision_gain: float | None = None
    mean_average_precision_gain_interval: tuple[float, float] | None = None
    mean_average_precision_error: float | None = None


def _packed(value: object) -> object:
    """Pack the list of booleans that earlier records hold."""
    if not isinstance(value, list):
        return value
    digits = "".join("1" if answer else "0" for answer in value)
    digits += "0" * (-len(digits) % 8)
    content = int(digits or "0", 2).to_bytes(len(digits) // 8, "big")
    return {"count": len(value), "bits": b64encode(content).decode("ascii")}


class PackedAnswers(Value):
    """Tell of `count` images, in an order, which were right: a bit each, the first the highest of its byte, in base64.

    Raises ValidationError when there are not as many bits.
    """

    count: Annotated[int, Field(ge=0)]
    bits: str

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if len(b64decode(self.bits, validate=True)) != -(-self.count // 8):
            raise ValueError(f"{self.count} answers must be in {-(-self.count // 8)} bytes")
        return self


class PackedMatrix(Value):
    """Hold numbers float32 [rows, columns], little-endian and row by row, in base64.

    Raises ValidationError when there are not as many.
    """

    rows: Annotated[int, Field(ge=0)]
    columns: Annotated[int, Field(ge=0)]
    values: str

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if len(b64decode(self.values, validate=True)) != 4 * self.rows * self.columns:
            raise ValueError(f"{self.rows} x {self.columns} numbers must be in {4 * self.rows * self.columns} bytes")
        return self


class BaselineResult(Record):
    """Hold the outcome of one trained control arm: which test images it got right, in the test table's order.

    Where images have any number of labels, `probabilities` [n, K] has that of each label, if there are at most 524,288;
    else there is the mean average precision that they have, with a bound of its error, as in `Baseline`.
    """

    group: str
    name: BaselineName
    hyperparameters: Hyperparameters
    seconds: float
    correct: Annotated[PackedAnswers | None, BeforeValidator(_packed)]
    error: str | None = None
    resources: dict[str, float] = {}
    probabilities: PackedMatrix | None = None
    mean_average_precision: float | None = None
    mean_average_precision_error: float | None = None


class Evaluation(Record, Scores):
    """Hold the test results of one group. Rows of the confusion matrix are true classes.

    `num_units` counts what intervals resample: images, those that data.split.keep_together holds together as one.
    `calibration` is None where no temperature could be fitted, `separation` without test images, `outliers` where the
    model has no score of what is none of its classes, or nothing to test it on, `episodes` and `label_shift` unless the
    experiment asks for them and there are test images. Where there are several tasks, all this is of the first, and
    `tasks` has the others. Where subsets have heads of their own, each image is judged by its subset's, `heads`
    compares these with one head for all, and has the `label_shift` of each.
    """

    group: str
    classes: list[str]
    subsets: list[SubsetScores]
    baselines: list[Baseline]
    num_units: int
    calibration: Calibration | None
    separation: FeatureSeparation | None
    outliers: OutlierScores | None = None
    episodes: EpisodeScores | None = None
    label_shift: LabelShift | None = None
    predictions: str
    seconds: float
    tasks: list[TaskScores] = []
    heads: list[HeadScores] = []


class PooledComparison(Value):
    """Compare all groups' recipes with one baseline over the pooled test images, paired by image."""

    baseline: str
    num_images: int
    accuracy: float
    baseline_accuracy: float
    accuracy_gain: float
    accuracy_gain_interval: tuple[float, float]
