"""Where the images are, how they are read, and how they are divided."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from orchestrator.config.base import Fraction

DataFormat = Literal["parquet", "csv", "jsonl", "webdataset", "images"]
InputFormat = Literal[DataFormat, "auto"]
Deduplicate = Literal["none", "exact", "near"]

DEMO_URI = "demo://digits"
SOURCE_URI = "demo://rendered-digits"


class Section(BaseModel):
    """Hold one part of the experiment file: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitFractions(Section):
    """Give the shares of samples that are held out for validation and test; the rest is for training."""

    val: Fraction = 0.15
    test: Fraction = 0.15

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Self:
        if self.val + self.test >= 1.0:
            raise ValueError(
                f"val and test must add up to less than 1, got {self.val} + {self.test}: lower one of them"
            )
        return self


class SplitConfig(Section):
    """Say how samples are divided into training, validation and test.

    `column` names a column that says train, val or test; otherwise a stable hash of the sample's identity (or
    of `keep_together`, so that samples sharing its value never straddle splits) is cut at `fractions`.
    """

    column: str | None = None
    fractions: SplitFractions = SplitFractions()
    keep_together: str | None = None


class DataConfig(Section):
    """Say where the labelled images are and how to read them.

    `image`, `label`, `subset`, `id` and those of `split` name columns of a table, or entries and JSON fields of tar
    samples. An image column holds bytes, structs of bytes and path, or paths: relative ones are below `image_root`,
    a path or URI, by default the directory of `uri`. `path` is the template of an image folder, by default
    `{subset}/{label}/{name}`, or of the tar shards, and may name subset, label, split and name. Without `id`, the
    path identifies an image file, relative to `image_root` where it lies below it, the digest of the bytes any other.
    With `label_separator` an image has any number of labels, none included: `label` is a text that it parts, or a list
    in Parquet, JSON Lines and the JSON of tar samples; an empty or missing one says that there is no label.
    `tasks` names further columns of labels, each a task of its own beside `label`, for `train.scope: multitask`; a
    sample may have none for them.
    `verify: none` opens no image in the catalogue pass and makes no pixel cache. `deduplicate` leaves one of the
    images of a subset that show the same picture, and keeps the picture on one side of the split: `exact` tells it by
    its decoded pixels, `near` by its looks, `none` only counts. `max_cache_bytes` bounds the cache of decoded pixels;
    larger data is streamed in the final training, and in pretraining on labels or by SimSiam.
    """

    uri: Annotated[str, Field(min_length=1)]
    format: InputFormat = "auto"
    image: str | None = None
    image_root: Annotated[str, Field(min_length=1)] | None = None
    label: str | None = None
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    tasks: list[Annotated[str, Field(min_length=1)]] = []
    subset: str | None = None
    id: str | None = None
    path: str | None = None
    split: SplitConfig = SplitConfig()
    verify: Literal["decode", "none"] = "decode"
    deduplicate: Deduplicate = "none"
    max_bad_fraction: Fraction = 0.01
    max_cache_bytes: Annotated[int, Field(ge=0)] = 20 * 2**30

    @model_validator(mode="after")
    def _copies_are_told_by_pixels(self) -> Self:
        if self.deduplicate != "none" and self.verify == "none":
            raise ValueError(
                f"deduplicate must be none where verify is none, got {self.deduplicate}: set verify to decode"
            )
        return self

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        named = self.task_names
        if len(set(named)) < len(named):
            raise ValueError(
                f"tasks must be columns other than label, each named once, got {', '.join(self.tasks)}: leave one out"
            )
        return self

    @property
    def is_multi_label(self) -> bool:
        """Tell whether images have any number of labels."""
        return self.label_separator is not None

    @property
    def task_names(self) -> list[str]:
        """Name the tasks after their columns, that of the label first."""
        return [self.label or "label", *self.tasks]
