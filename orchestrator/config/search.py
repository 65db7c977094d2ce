"""How a search is shaped and bounded, and what its trials share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from orchestrator.config.base import PositiveFloat, PositiveInt, SamplerName
from orchestrator.config.data import Section
from orchestrator.config.space import SpaceConfig


class CacheConfig(Section):
    """Say how the outputs of frozen stages are kept, which all trials share.

    `activations: auto` keeps those of a freeze depth where a measured cost rule says that it pays. `uri` is a
    directory that several runs may share, by default `cache` below `storage_path`; beyond `max_bytes` what was used
    longest ago goes. A `dtype` of half the size is taken only for depths where the model's outputs change by no more
    than `tolerance`, relative to their spread.
    """

    activations: Literal["auto", "always", "never"] = "auto"
    uri: str | None = None
    max_bytes: PositiveInt = 20 * 2**30
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    tolerance: PositiveFloat = 0.01


class BudgetConfig(Section):
    """Bound the searches of all groups together, races included; None is no bound.

    `trials` defaults to `search.num_samples` for each group. `time_budget_s` counts the seconds in which trials run,
    over resumes and without the time in between; what measures costs and fills the cache comes before. `gpu_hours`
    counts the GPUs that trials hold.
    """

    trials: PositiveInt | None = None
    time_budget_s: PositiveFloat | None = None
    gpu_hours: PositiveFloat | None = None


class SearchConfig(Section):
    """Bound and shape the search of every group.

    `num_samples` counts trials of one group, the fixed rule included; groups that stagnate leave theirs to others.
    A group starts no more trials once one has reached `target`, a value of `metric`; where images have any number of
    labels, `val_accuracy` is their mean average precision.
    With `folds` above 1 the metric of a trial is its mean over that many folds of the group's training and validation
    samples, each held out once: a trial takes as many times the work and memory for models, and counts as one.
    A group with fewer training images in its median class than `few_shot_threshold` has other defaults of this section
    and of `finetune` (see `search.few_shot`); 0 leaves every group alike.
    `heads` head-only trials run at once. `resources_per_trial` is in Ray's words, for example {CPU: 2, GPU: 0.5};
    with `num_workers_per_trial` above 1 it is what each worker of a trial takes. `storage` is the address of an
    Optuna storage that keeps the studies, by default a journal in the run directory; `study_name` begins their
    names, by default the experiment's. `warm_start` begins with the recipes of the most alike finished searches in
    `library`, by default `library` below `storage_path`, which receives this search's.
    """

    num_samples: PositiveInt = 20
    budget: BudgetConfig = BudgetConfig()
    target: PositiveFloat | None = None
    sampler: SamplerName = "tpe"
    storage: str | None = None
    study_name: str | None = None
    early_stopping: bool = True
    folds: PositiveInt = 1
    few_shot_threshold: Annotated[int, Field(ge=0)] = 6
    heads: PositiveInt = 8
    warm_start: bool = True
    library: str | None = None
    num_workers_per_trial: PositiveInt = 1
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    mode: Literal["max", "min"] | None = None
    max_concurrent_trials: PositiveInt | None = None
    resources_per_trial: dict[str, PositiveFloat] | None = None
    space: SpaceConfig = SpaceConfig()

    @property
    def direction(self) -> Literal["max", "min"]:
        """Give the mode, by default the one that the metric implies."""
        return self.mode or ("min" if self.metric == "val_loss" else "max")

    @model_validator(mode="after")
    def _workers_have_whole_gpus(self) -> Self:
        gpus = (self.resources_per_trial or {}).get("GPU", 1.0)
        if self.num_workers_per_trial > 1 and gpus != int(gpus):
            raise ValueError(
                f"resources_per_trial must name whole GPUs when num_workers_per_trial is above 1, got {gpus:g}: "
                "workers of one trial cannot share a GPU"
            )
        return self

    @model_validator(mode="after")
    def _folds_have_one_process(self) -> Self:
        if self.folds > 1 and self.num_workers_per_trial > 1:
            raise ValueError(
                f"folds must be 1 when num_workers_per_trial is above 1, got {self.folds}: "
                "folds are trained in one process, leave num_workers_per_trial at 1"
            )
        return self

    @model_validator(mode="after")
    def _mode_fits_the_metric(self) -> Self:
        implied = "min" if self.metric == "val_loss" else "max"
        if self.mode is not None and self.mode != implied:
            raise ValueError(f"mode must be {implied} for {self.metric}, got {self.mode}: leave mode out")
        return self

    @model_validator(mode="after")
    def _target_can_be_reached(self) -> Self:
        if self.target is not None and self.metric == "val_accuracy" and self.target > 1:
            raise ValueError(f"target must be at most 1 for val_accuracy, got {self.target:g}: give it as a share")
        return self
