"""The section that all others are, and the words that several of them use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
)

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
OptimizerName = Literal["sgd", "adam", "adamw"]
DiversityMeasure = Literal["label_entropy", "pixel_entropy", "feature_diversity"]
EntropyEstimator = Literal["plug_in", "miller_madow", "chao_shen"]
SamplerName = Literal["tpe", "gp", "random", "cmaes"]
PrecisionName = Literal["fp32", "bf16", "fp16", "auto"]
SplitName = Literal["train", "val", "test"]
