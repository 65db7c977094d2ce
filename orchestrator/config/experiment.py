"""The experiment file as a whole, and the sections that train, judge and place it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from orchestrator.config.backbone import BackboneConfig, PretrainConfig
from orchestrator.config.base import DiversityMeasure, PositiveFloat, PositiveInt
from orchestrator.config.data import DataConfig, Section
from orchestrator.config.diversity import DiversityConfig, GroupingConfig
from orchestrator.config.finetune import FineTuneConfig, NonNegativeFloat
from orchestrator.config.search import AugmentConfig, CacheConfig, SearchConfig
from orchestrator.config.space import Range

Seed = Annotated[int, Field(ge=0, lt=2**32)]
SeedName = Literal["split", "sampler", "trial", "loader"]


class TrainConfig(Section):
    """Say how the winner of each group is trained, in Ray Train's words.

    `batch_norm: frozen` keeps the statistics of every BatchNorm layer, `train` updates those of the stages
    that are not frozen. `precision: auto` is bf16 on a GPU that has it and fp32 elsewhere. The search and the
    baselines use the same `batch_norm` and `precision`: what was tuned is what ships.
    """

    num_workers: PositiveInt = 1
    use_gpu: Literal[True, False, "auto"] = "auto"
    resources_per_worker: dict[str, PositiveFloat] | None = None
    max_failures: Annotated[int, Field(ge=0)] = 2
    num_to_keep: PositiveInt = 2
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    batch_norm: Literal["frozen", "train"] = "frozen"


class EvaluateConfig(Section):
    """Say how test results are bounded: bootstrap resamples, and their seed comes from the run's.

    `explanations` is how many of each group's most confident mistakes, and of its right answers, the report shows
    with what the model looked at; 0 shows none.
    """

    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    explanations: Annotated[int, Field(ge=0)] = 3


class ResourceCosts(Section):
    """Say what holding one CPU or GPU for an hour costs, by Ray's names, in a currency of yours.

    A node of 16 CPUs at 0.64 an hour is `{CPU: 0.04}`; where the CPUs come with the GPU, `{GPU: 2.5}`.
    """

    CPU: NonNegativeFloat = 0.0
    GPU: NonNegativeFloat = 0.0


class ClusterConfig(Section):
    """Bound the waits on Ray, and say what its resources cost.

    A stage in which nothing ends for `stall_timeout_s` is ended with an error. What counts is a block of samples, an
    epoch (of all folds) or a trial: the limit must be longer than the longest epoch.
    `autoscaling` says that nodes may join when work waits: then a plan that does not fit yet is no error.
    Without `cost_per_hour` money is left out of the report.
    """

    stall_timeout_s: PositiveFloat = 1800.0
    autoscaling: bool = False
    cost_per_hour: ResourceCosts | None = None


class SeedsConfig(Section):
    """Give what is random a seed of its own; None takes the experiment's `seed`.

    `split` divides samples into training, validation and test. `sampler` draws the configurations of the search.
    `trial` draws new heads, networks that are trained from scratch, and dropout. `loader` orders training samples and
    varies them.
    """

    split: Seed | None = None
    sampler: Seed | None = None
    trial: Seed | None = None
    loader: Seed | None = None


class ExperimentConfig(Section):
    """Hold the whole experiment file, resolved: every path absolute, every default filled in."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    storage_path: str = Field(default_factory=lambda: str(Path("~/ray_results").expanduser()))
    seed: Seed = 0
    seeds: SeedsConfig = SeedsConfig()
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    pretrain: PretrainConfig | None = None
    diversity: DiversityConfig = DiversityConfig()
    grouping: GroupingConfig = GroupingConfig()
    augment: AugmentConfig = AugmentConfig()
    cache: CacheConfig = CacheConfig()
    finetune: FineTuneConfig = FineTuneConfig()
    search: SearchConfig = SearchConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _sections_fit_each_other(self) -> Self:
        if self.backbone.weights == "pretrain" and self.pretrain is None:
            raise ValueError("backbone.weights must have a section pretrain, got pretrain: add pretrain.data.uri")
        unprofiled = set(self.grouping_measures) - set(self.diversity.measures)
        if unprofiled:
            raise ValueError(
                f"grouping.measures must be profiled, got {', '.join(sorted(unprofiled))}: add it to diversity.measures"
            )
        if self.data.verify == "none" and self.backbone.candidates:
            raise ValueError("backbone.candidates must open images, got data.verify none: set it to decode")
        if self.data.verify == "none" and self.diversity.measures != ["label_entropy"]:
            raise ValueError(
                "diversity.measures beyond label_entropy must open images, got data.verify none: set it to decode"
            )
        return self

    def seed_of(self, purpose: SeedName) -> int:
        """Give the seed of one of the things that are random."""
        own: int | None = getattr(self.seeds, purpose)
        return self.seed if own is None else own

    @property
    def largest_batch(self) -> int:
        """Give the most samples that a batch of a trial has."""
        sizes = self.search.space.batch_size
        if sizes is None:
            return self.finetune.batch_size
        return int(sizes.high if isinstance(sizes, Range) else max(sizes))

    @property
    def grouping_measures(self) -> list[DiversityMeasure]:
        """Give the measures that grouping stands on: by default the first profiled one."""
        return self.grouping.measures or self.diversity.measures[:1]
