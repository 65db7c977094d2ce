"""The hyperparameters that a search may choose from."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from orchestrator.config.base import OptimizerName
from orchestrator.config.data import Section


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
IntDimension = Annotated[Annotated[Range, Tag(RANGE_TAG)] | Annotated[IntChoices, Tag(CHOICES_TAG)], _DIMENSION]
FloatDimension = Annotated[Annotated[Range, Tag(RANGE_TAG)] | Annotated[FloatChoices, Tag(CHOICES_TAG)], _DIMENSION]


class SpaceConfig(Section):
    """Say what is searched: a range or a list of choices for each hyperparameter; None takes the fixed value.

    `freeze_depth` defaults to 0 up to the number of stages of the backbone.
    """

    freeze_depth: IntDimension | None = None
    learning_rate: FloatDimension = Range(low=1e-5, high=1e-2, log=True)
    epochs: IntDimension = [10, 20, 30, 50]
    batch_size: IntDimension | None = None
    weight_decay: FloatDimension | None = None
    optimizer: Annotated[list[OptimizerName], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _values_make_sense(self) -> Self:
        for name, least in (("freeze_depth", 0), ("epochs", 1), ("batch_size", 2)):
            dimension = getattr(self, name)
            if isinstance(dimension, Range) and not dimension.is_integer:
                raise ValueError(
                    f"{name} must be whole numbers, got {dimension.low} and {dimension.high}: "
                    "write them without a decimal point"
                )
            if dimension is not None and _lowest(dimension) < least:
                raise ValueError(f"{name} must be at least {least}, got {_lowest(dimension)}: raise it")
        if _lowest(self.learning_rate) <= 0:
            raise ValueError(f"learning_rate must be greater than 0, got {_lowest(self.learning_rate)}: raise it")
        if self.weight_decay is not None and _lowest(self.weight_decay) < 0:
            raise ValueError(f"weight_decay must be at least 0, got {_lowest(self.weight_decay)}: raise it")
        return self


def _lowest(dimension: Range | list[int] | list[float]) -> float:
    return dimension.low if isinstance(dimension, Range) else min(dimension)
