"""Data that every group is trained together with, and every subset that has a model of its own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.backbone import LabelNeed
from orchestrator.config.base import PositiveFloat
from orchestrator.config.data import DataConfig, Section
from orchestrator.config.finetune import InnerShare, NonNegativeFloat

DomainPenalty = Literal["none", "coral", "mmd"]
Negatives = Literal["none", "reject", "outlier_exposure"]

_OUTLIER_WEIGHT = 0.5


class SourceConfig(Section):
    """Name source data that every group is trained together with, on batches of both.

    So is every subset that has a model of its own (`train.scope: subset`), over its own classes: for it read subset
    where group stands here.

    `uri` is read as the section `data` says; `data` is a section of its own, for data that is laid out otherwise.
    `classes` restricts the source to these labels; default: all that occur. Its training split is trained on: by the
    search as far as its pixels are cached, by final trainings all of it, streamed where not all is. `batch_share` is
    the share of source images in a batch: the batch size counts target images, the source comes in addition. `weight`
    is that of the mean source loss of a batch beside the mean target loss, and of the source in prototypes. Where every
    stage is frozen these are found without batches: `batch_share` and the penalty then change nothing.

    `penalty` adds `penalty_weight` times the distance of both parts of a batch in the features before the head: `coral`
    of their covariances (Sun and Saenko, "Deep CORAL", 2016), `mmd` of their distributions (Gretton et al., "A Kernel
    Two-Sample Test", 2012); see `finetune.domain_penalties`.

    `as_negatives: none` learns the source's labels: those that are classes of the group by name share its outputs, the
    others have outputs of their own in the same softmax, which the finished model leaves out. `reject` learns one class
    more that all source images have, whatever their labels ("none of the above": Zhang and LeCun, "Universum
    Prescription: Regularization Using Unlabeled Data", 2017). `outlier_exposure` asks for equal probabilities on them
    (Hendrycks et al., "Deep Anomaly Detection with Outlier Exposure", 2019). With both the model gives a score of how
    little an image looks like the target's; the source needs no labels, unless `classes` chooses by them. `weight` is
    by default 1, and 0.5 for outlier exposure, as in the paper.
    """

    uri: Annotated[str, Field(min_length=1)] | None = None
    data: DataConfig | None = None
    classes: list[str] | None = None
    batch_share: InnerShare = 0.5
    weight: NonNegativeFloat | None = None
    penalty: DomainPenalty = "none"
    penalty_weight: PositiveFloat = 1.0
    as_negatives: Negatives = "none"

    @property
    def labels(self) -> LabelNeed:
        """Tell whether every source image must have a label, or none needs one: of negatives none does."""
        return "every" if self.has_task or self.classes is not None else "none"

    @property
    def loss_weight(self) -> float:
        """Give the weight of the source loss."""
        if self.weight is not None:
            return self.weight
        return _OUTLIER_WEIGHT if self.as_negatives == "outlier_exposure" else 1.0

    @property
    def has_task(self) -> bool:
        """Tell whether the source's labels are learnt: as negatives its images have none."""
        return self.as_negatives == "none"

    @model_validator(mode="after")
    def _is_found_and_counts(self) -> Self:
        if (self.uri is None) == (self.data is None):
            found = "none" if self.uri is None else "both"
            raise ValueError(f"uri or data must name the source, got {found}: write one of them")
        if self.data is not None and self.data.verify == "none":
            raise ValueError("data.verify must be decode for a source, got none: its images are trained on")
        if self.loss_weight == 0 and not self.has_task:
            raise ValueError(f"weight must be above 0 with as_negatives {self.as_negatives}, got 0: raise it")
        if self.loss_weight == 0 and self.penalty == "none":
            raise ValueError("weight must be above 0 without a penalty, got 0: raise it, or leave the source out")
        return self
