"""Hyperparameters, and the record of those that a search picked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.config import OptimizerName
from orchestrator.records.base import Record, Value


class Hyperparameters(Value):
    """Hold one complete configuration of a fine-tuning run."""

    freeze_depth: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    optimizer: OptimizerName
    weight_decay: float = Field(ge=0)


class Recipe(Record):
    """Hold the hyperparameters that a search picked for a group.

    `origin` says whether they are the group's own, those that are best over all groups, or the fixed rule's, and
    `reason` why. `value` is the score of the group's trial, which was picked for being high, None where only another
    group has tried the recipe, whose trial is then named; `score` the mean over `runs` fresh re-splits with its
    `standard_error`, None where there was no budget for a race.
    """

    group: str
    trial_id: str
    metric: str
    value: float | None
    hyperparameters: Hyperparameters
    origin: Literal["group", "pooled", "fixed_rule"] = "group"
    reason: str = ""
    score: float | None = None
    standard_error: float | None = None
    runs: int = 0
