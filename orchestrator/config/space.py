"""The hyperparameters that a search may choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from orchestrator.config.augmentation import AUGMENTATIONS, AugmentConfig
from orchestrator.config.base import OptimizerName
from orchestrator.config.data import Section
from orchestrator.config.finetune import (
    ClassWeighting,
    FineTuneConfig,
    HeadName,
    LossName,
    MixingName,
    RateScaling,
    RegularizerName,
    RegularizerScope,
    ScheduleName,
    SmoothingTarget,
    StrategyName,
    TaskWeighting,
)


def _require_number(value: object) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"must be a number, got {value!r}: write one such as 3 or 1e-4")
    return value


class Range(Section):
    """Bound a searched number, inclusive at both ends; integers where both ends are integers."""

    low: Annotated[int | float, BeforeValidator(_require_number)]
    high: Annotated[int | float, BeforeValidator(_require_number)]
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must be at most high, got {self.low} and {self.high}: swap them")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be greater than 0 with log, got {self.low}: raise it or drop log")
        return self

    @property
    def is_integer(self) -> bool:
        """Tell whether only integers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)


# Tags tell pydantic which kind was meant, so that a mistake is reported once; no field can bear such a name.
RANGE_TAG, CHOICES_TAG = "a range", "a list of choices"


def _kind_of_dimension(value: object) -> str | None:
    if isinstance(value, Range | dict):
        return RANGE_TAG
    return CHOICES_TAG if isinstance(value, list | tuple) else None


_DIMENSION = Discriminator(
    _kind_of_dimension,
    custom_error_type="dimension",
    custom_error_message="must be a range such as low: 1, high: 4 in braces, or a list of choices",
)
Choice = TypeVar("Choice")
Choices = Annotated[list[Choice], Field(min_length=1)]
Dimension = Annotated[Annotated[Range, Tag(RANGE_TAG)] | Annotated[Choices[Choice], Tag(CHOICES_TAG)], _DIMENSION]
Number = Annotated[float, BeforeValidator(_require_number)]

_WHOLE_NUMBERS = (
    "freeze_depth",
    "epochs",
    "unfreeze_every",
    "batch_size",
    "accumulate",
    "patience",
    "randaugment",
    "magnitude",
)


class SpaceConfig(Section):
    """Say what is searched: a range or a list of choices for each hyperparameter; None takes what `finetune` says.

    Of how samples are varied (`flip` to `erasing`) None takes what `augment` says; `augment.views` must be 0.
    `freeze_depth` defaults to 0 up to the number of stages of the backbone. A list for what may be off holds `null`.
    """

    freeze_depth: Dimension[int] | None = None
    learning_rate: Dimension[Number] = Range(low=1e-5, high=1e-2, log=True)
    epochs: Dimension[int] = [10, 20, 30, 50]
    strategy: Choices[StrategyName] | None = None
    head: Choices[HeadName] | None = None
    head_share: Dimension[Number] | None = None
    unfreeze_every: Dimension[int] | None = None
    layer_decay: Dimension[Number] | None = None
    batch_size: Dimension[int] | None = None
    optimizer: Choices[OptimizerName] | None = None
    momentum: Dimension[Number] | None = None
    nesterov: Choices[bool] | None = None
    weight_decay: Dimension[Number] | None = None
    schedule: Choices[ScheduleName] | None = None
    warmup: Dimension[Number] | None = None
    rate_scaling: Choices[RateScaling] | None = None
    clip_norm: Dimension[Number | None] | None = None
    accumulate: Dimension[int] | None = None
    ema_decay: Dimension[Number | None] | None = None
    patience: Dimension[int | None] | None = None
    regularizer: Choices[RegularizerName] | None = None
    regularizer_weight: Dimension[Number] | None = None
    regularizer_scope: Choices[RegularizerScope] | None = None
    loss: Choices[LossName] | None = None
    focal_gamma: Dimension[Number] | None = None
    label_smoothing: Dimension[Number] | None = None
    smoothing_target: Choices[SmoothingTarget] | None = None
    class_weights: Choices[ClassWeighting] | None = None
    balanced: Choices[bool] | None = None
    mixing: Choices[MixingName] | None = None
    mixing_alpha: Dimension[Number] | None = None
    adversarial: Dimension[Number] | None = None
    dropout: Dimension[Number] | None = None
    stochastic_depth: Dimension[Number | None] | None = None
    task_weighting: Choices[TaskWeighting] | None = None
    flip: Choices[bool] | None = None
    crop: Dimension[Number] | None = None
    colour: Dimension[Number] | None = None
    randaugment: Dimension[int] | None = None
    magnitude: Dimension[int] | None = None
    erasing: Dimension[Number] | None = None

    @model_validator(mode="after")
    def _values_make_sense(self) -> Self:
        for name in _WHOLE_NUMBERS:
            dimension = getattr(self, name)
            if isinstance(dimension, Range) and not dimension.is_integer:
                raise ValueError(
                    f"{name} must be whole numbers, got {dimension.low} and {dimension.high}: "
                    "write them without a decimal point"
                )
        for name, least in (("freeze_depth", 0), ("epochs", 1), ("batch_size", 2)):
            dimension = getattr(self, name)
            if dimension is not None and _lowest(dimension) < least:
                raise ValueError(f"{name} must be at least {least}, got {_lowest(dimension)}: raise it")
        if _lowest(self.learning_rate) <= 0:
            raise ValueError(f"learning_rate must be greater than 0, got {_lowest(self.learning_rate)}: raise it")
        for name in FineTuneConfig.model_fields:
            for value in _values(getattr(self, name)):
                _require_allowed(name, value, {name: value}, FineTuneConfig, "finetune")
        for name in AUGMENTATIONS:
            for value in _values(getattr(self, name)):
                _require_allowed(name, value, {"views": 0, name: value}, AugmentConfig, "augment")
        return self

    @property
    def augmentations(self) -> list[str]:
        """Name what is searched of how samples are varied."""
        return [name for name in AUGMENTATIONS if getattr(self, name) is not None]


def require_fresh_draws(augment: AugmentConfig, space: SpaceConfig) -> None:
    """Refuse to search how samples are varied beside fixed views, which are made before the search. Raises ValueError.

    Also a magnitude of operations that there never are.
    """
    if space.augmentations and augment.views != 0:
        raise ValueError(
            f"augment.views must be 0 where search.space has {', '.join(space.augmentations)}, got {augment.views}: "
            "set it to 0, which draws afresh every epoch, or leave them out of search.space"
        )
    operations = [augment.randaugment] if space.randaugment is None else _values(space.randaugment)
    if space.magnitude is not None and not any(operations):
        raise ValueError(
            "search.space.magnitude must be left out without operations of RandAugment, got one: "
            "set augment.randaugment, or search it"
        )


def _require_allowed(name: str, value: object, fields: dict[str, object], kind: type[Section], section: str) -> None:
    try:
        kind.model_validate(fields)
    except ValidationError as error:
        rule = error.errors()[0]["msg"].replace("Input should be", "must be")
        raise ValueError(f"{name} {rule}, got {value}: search what {section}.{name} may be") from None


def _values(dimension: Range | Sequence[object] | None) -> Sequence[object]:
    """Give the values that bound a dimension."""
    if dimension is None:
        return []
    return [dimension.low, dimension.high] if isinstance(dimension, Range) else dimension


def _lowest(dimension: Range | list[int] | list[float]) -> float:
    return dimension.low if isinstance(dimension, Range) else min(dimension)
