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

from orchestrator.config.base import OptimizerName
from orchestrator.config.data import Section
from orchestrator.config.finetune import (
    ClassWeighting,
    FineTuneConfig,
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
IntChoices = Annotated[list[int], Field(min_length=1)]
FloatChoices = Annotated[list[Annotated[float, BeforeValidator(_require_number)]], Field(min_length=1)]
OptionalInts = Annotated[list[int | None], Field(min_length=1)]
OptionalFloats = Annotated[list[Annotated[float, BeforeValidator(_require_number)] | None], Field(min_length=1)]
IntDimension = Annotated[Annotated[Range, Tag(RANGE_TAG)] | Annotated[IntChoices, Tag(CHOICES_TAG)], _DIMENSION]
FloatDimension = Annotated[Annotated[Range, Tag(RANGE_TAG)] | Annotated[FloatChoices, Tag(CHOICES_TAG)], _DIMENSION]
OptionalIntDimension = Annotated[
    Annotated[Range, Tag(RANGE_TAG)] | Annotated[OptionalInts, Tag(CHOICES_TAG)], _DIMENSION
]
OptionalFloatDimension = Annotated[
    Annotated[Range, Tag(RANGE_TAG)] | Annotated[OptionalFloats, Tag(CHOICES_TAG)], _DIMENSION
]

Choice = TypeVar("Choice")
Choices = Annotated[list[Choice], Field(min_length=1)]

_WHOLE_NUMBERS = ("freeze_depth", "epochs", "unfreeze_every", "batch_size", "accumulate", "patience")


class SpaceConfig(Section):
    """Say what is searched: a range or a list of choices for each hyperparameter; None takes what `finetune` says.

    `freeze_depth` defaults to 0 up to the number of stages of the backbone. A list for what may be off holds `null`.
    """

    freeze_depth: IntDimension | None = None
    learning_rate: FloatDimension = Range(low=1e-5, high=1e-2, log=True)
    epochs: IntDimension = [10, 20, 30, 50]
    strategy: Choices[StrategyName] | None = None
    head_share: FloatDimension | None = None
    unfreeze_every: IntDimension | None = None
    layer_decay: FloatDimension | None = None
    batch_size: IntDimension | None = None
    optimizer: Choices[OptimizerName] | None = None
    momentum: FloatDimension | None = None
    nesterov: Choices[bool] | None = None
    weight_decay: FloatDimension | None = None
    schedule: Choices[ScheduleName] | None = None
    warmup: FloatDimension | None = None
    rate_scaling: Choices[RateScaling] | None = None
    clip_norm: OptionalFloatDimension | None = None
    accumulate: IntDimension | None = None
    ema_decay: OptionalFloatDimension | None = None
    patience: OptionalIntDimension | None = None
    regularizer: Choices[RegularizerName] | None = None
    regularizer_weight: FloatDimension | None = None
    regularizer_scope: Choices[RegularizerScope] | None = None
    loss: Choices[LossName] | None = None
    focal_gamma: FloatDimension | None = None
    label_smoothing: FloatDimension | None = None
    smoothing_target: Choices[SmoothingTarget] | None = None
    class_weights: Choices[ClassWeighting] | None = None
    balanced: Choices[bool] | None = None
    mixing: Choices[MixingName] | None = None
    mixing_alpha: FloatDimension | None = None
    adversarial: FloatDimension | None = None
    dropout: FloatDimension | None = None
    stochastic_depth: OptionalFloatDimension | None = None
    task_weighting: Choices[TaskWeighting] | None = None

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
                _require_allowed(name, value)
        return self


def _require_allowed(name: str, value: object) -> None:
    try:
        FineTuneConfig.model_validate({name: value})
    except ValidationError as error:
        rule = error.errors()[0]["msg"].replace("Input should be", "must be")
        raise ValueError(f"{name} {rule}, got {value}: search what finetune.{name} may be") from None


def _values(dimension: Range | Sequence[object] | None) -> Sequence[object]:
    """Give the values that bound a dimension."""
    if dimension is None:
        return []
    return [dimension.low, dimension.high] if isinstance(dimension, Range) else dimension


def _lowest(dimension: Range | list[int] | list[float]) -> float:
    return dimension.low if isinstance(dimension, Range) else min(dimension)
