"""What is measured of subsets, and how they are grouped."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from orchestrator.config.base import DiversityMeasure, EntropyEstimator, PositiveInt
from orchestrator.config.data import Section

SKETCH_SIZE = 512
"""The directions that a sketch of features holds: of no more dimensions it would save nothing."""

MOST_EXACT_DIMENSIONS = 2048
"""The most dimensions of features whose sums are exact by default."""


class DiversityConfig(Section):
    """Say which measures of diversity are taken, over which split, and from how many images of a subset.

    `entropy_estimator` mends what small samples miss of entropies of labels and columns: `plug_in` does not. `columns`
    name columns of Parquet files, or names in data.path for an image folder, such as weather or camera: the entropy of
    each and of their combinations is measured, a missing value counting as one of its own. Features of more than
    `sketch_above` dimensions are summed up in a sketch of 512 directions (`diversity.sketch`), which takes less memory
    and gives bounds instead of the score of all images. To 2,048 an exact sum takes at most 34 MB a subset.
    """

    measures: Annotated[list[DiversityMeasure], Field(min_length=1)] = ["label_entropy"]
    split: Literal["train", "all"] = "train"
    sample_per_subset: PositiveInt | None = None
    entropy_estimator: EntropyEstimator = "plug_in"
    columns: list[Annotated[str, Field(min_length=1)]] = []
    sketch_above: Annotated[int, Field(ge=SKETCH_SIZE)] = MOST_EXACT_DIMENSIONS

    @field_validator("columns")
    @classmethod
    def _columns_differ(cls, columns: list[str]) -> list[str]:
        if len(set(columns)) < len(columns):
            raise ValueError(f"must name each column once, got {columns}: drop repeats")
        return columns


class GroupingConfig(Section):
    """Say how subsets of like diversity are put together.

    `thresholds` are ascending borders on the first measure; the other methods make `num_groups`, and `auto` as many as
    part the subsets best. A subset with fewer than `min_images` images joins the nearest group and is flagged.
    `on_indistinct` says what happens when the subsets differ no more than chance would have it: the groups are kept,
    merged into one, or refused.
    """

    measures: Annotated[list[DiversityMeasure], Field(min_length=1)] | None = None
    method: Literal["thresholds", "quantiles", "jenks", "kmeans"] = "quantiles"
    num_groups: PositiveInt | Literal["auto"] = 3
    thresholds: list[float] = []
    min_images: Annotated[int, Field(ge=0)] = 10
    on_indistinct: Literal["keep", "merge", "fail"] = "keep"

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> Self:
        if self.method == "thresholds" and not self.thresholds:
            raise ValueError("thresholds must hold a border for method thresholds, got none: add one")
        if sorted(set(self.thresholds)) != self.thresholds:
            raise ValueError(f"thresholds must ascend, got {self.thresholds}: sort them and drop repeats")
        if self.method == "thresholds" and self.measures is not None and len(self.measures) != 1:
            raise ValueError(f"measures must be one for method thresholds, got {self.measures}: keep one")
        return self
