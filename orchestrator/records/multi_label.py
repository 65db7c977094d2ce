"""The test scores of models whose images may have any number of labels."""

from __future__ import annotations

from orchestrator.records.base import Value


class LabelScores(Value):
    """Score one label: its average precision, and its F1 at the threshold that was fitted on validation.

    `average_precision` and `f1` are None where no test image has the label; `threshold` is 0.5 where no validation
    image has it.
    """

    label: str
    num_images: int
    average_precision: float | None
    threshold: float
    f1: float | None


class LabelSetScores(Value):
    """Score the sets of labels whose probabilities reach a threshold, over test images.

    `subset_accuracy` is the share of images all of whose labels are right, `hamming_loss` the share of wrong answers
    over images and labels, `micro_f1` that of all answers together, None where no label is there or said to be.
    `macro_f1` is the mean over the labels that occur in the test images, None where none does.
    """

    subset_accuracy: float
    subset_accuracy_interval: tuple[float, float]
    hamming_loss: float
    hamming_loss_interval: tuple[float, float]
    micro_f1: float | None
    micro_f1_interval: tuple[float, float] | None
    macro_f1: float | None
    macro_f1_interval: tuple[float, float] | None


class MultiLabelScores(Value):
    """Score test images of any number of labels; `by_label` is in the order of the model's outputs.

    `mean_average_precision` is over the labels that occur in the test images, None where none does; it has an interval
    unless there are too many answers to resample, and `mean_average_precision_error` bounds how far it can be off: 0
    where it is from ranks, None in records from before there was a bound. `at_half` judges answers at the threshold
    0.5, `at_fitted` those at each label's own.
    """

    mean_average_precision: float | None
    mean_average_precision_interval: tuple[float, float] | None
    mean_average_precision_error: float | None = None
    at_half: LabelSetScores
    at_fitted: LabelSetScores
    by_label: list[LabelScores]
