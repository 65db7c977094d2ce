"""The experiment file as frozen, typed sections; unknown keys are forbidden.

Validators speak as "field rule, got value: remedy", with the field as seen from their own section.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
OptimizerName = Literal["sgd", "adam", "adamw"]
DiversityMeasure = Literal["label_entropy", "pixel_entropy", "feature_diversity"]
EntropyEstimator = Literal["plug_in", "miller_madow", "chao_shen"]
SamplerName = Literal["tpe", "gp", "random", "cmaes"]
SplitName = Literal["train", "val", "test"]
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
    path identifies an image file, the digest of the bytes any other image.
    `verify: none` opens no image in the catalogue pass and makes no pixel cache. `deduplicate` leaves one of the
    images of a subset that show the same picture, and keeps the picture on one side of the split: `exact` tells it by
    its decoded pixels, `near` by its looks, `none` only counts. `max_cache_bytes` bounds the cache of decoded pixels;
    larger data is streamed in the final training.
    """

    uri: Annotated[str, Field(min_length=1)]
    format: InputFormat = "auto"
    image: str | None = None
    image_root: Annotated[str, Field(min_length=1)] | None = None
    label: str | None = None
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


def _require_plain(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a plain value, got {value!r}: write text, a number, true or false")
    return value


PlainValue = Annotated[bool | int | float | str, BeforeValidator(_require_plain)]


class PretrainedNetwork(Section):
    """Name a pretrained network and the normalisation that it was trained with.

    `weights` is a path or URI of a state dict, a torchvision weights name, `pretrain` (the run's own source
    task) or `none`. `mean` and `std` are per channel on pixels scaled to [0, 1]; default: those of the
    torchvision weights.
    """

    name: str = "resnet18"
    kwargs: dict[str, PlainValue] = {}
    weights: str = "DEFAULT"
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None

    @field_validator("weights", mode="before")
    @classmethod
    def _yaml_null_means_none(cls, value: object) -> object:
        return "none" if value is None else value


class CandidateConfig(PretrainedNetwork):
    """Name one of several networks to choose from; `title` names it in tables, by default by its name and kwargs.

    Pixels are decoded once for all candidates: `image_size` may be given, but must be the section's.
    """

    name: str
    title: Annotated[str, Field(pattern=r"^[^,]+$")] | None = None
    image_size: int | None = None


class BackboneConfig(PretrainedNetwork):
    """Name the pretrained network and the preprocessing of its images.

    With `candidates` the run measures all of them on its training images and takes the best: then they, not the
    section, name networks.
    """

    image_size: Annotated[int, Field(ge=8, le=4096)] = 224
    resize: Literal["crop", "squash"] = "crop"
    candidates: list[CandidateConfig] = []

    @property
    def title(self) -> str:
        """Name the network by what builds it."""
        return _title(self)

    @property
    def by_title(self) -> dict[str, BackboneConfig]:
        """Give the networks to choose from by their titles: the candidates, or the one that the section names."""
        if not self.candidates:
            return {self.title: self}
        return {
            candidate.title or _title(candidate): BackboneConfig(
                image_size=self.image_size,
                resize=self.resize,
                **candidate.model_dump(exclude={"title", "image_size"}),
            )
            for candidate in self.candidates
        }

    @model_validator(mode="after")
    def _candidates_stand_for_the_section(self) -> Self:
        if not self.candidates:
            return self
        for key, field in PretrainedNetwork.model_fields.items():
            if getattr(self, key) != field.default:
                raise ValueError(
                    f"{key} must be left out where candidates name networks, got {getattr(self, key)}: "
                    "make it one of the candidates"
                )
        for candidate in self.candidates:
            if candidate.weights == "pretrain":
                raise ValueError(
                    f"candidates must have weights, got pretrain for {candidate.name}: pretrain it in a run of its own"
                )
            if candidate.image_size not in (None, self.image_size):
                raise ValueError(
                    f"candidates must share image_size {self.image_size}, got {candidate.image_size} for "
                    f"{candidate.name}: set backbone.image_size"
                )
        if len(self.by_title) < len(self.candidates):
            titles = [candidate.title or _title(candidate) for candidate in self.candidates]
            repeated = next(title for title in titles if titles.count(title) > 1)
            raise ValueError(f"candidates must have different titles, got {repeated} twice: add title to one of them")
        return self


def _title(network: PretrainedNetwork) -> str:
    return " ".join([network.name, *(f"{key}={value}" for key, value in network.kwargs.items())])


class PretrainConfig(Section):
    """Describe the source task that is trained from scratch when `backbone.weights` is `pretrain`.

    `classes` restricts the source to these labels; default: all that occur.
    """

    data: DataConfig
    classes: list[str] | None = None
    epochs: PositiveInt = 10
    learning_rate: PositiveFloat = 1e-3
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: OptimizerName = "adam"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0


class DiversityConfig(Section):
    """Say which measures of diversity are taken, over which split, and from how many images of a subset.

    `entropy_estimator` mends what small samples miss of entropies of labels and columns: `plug_in` does not. `columns`
    name columns of Parquet files, or names in data.path for an image folder, such as weather or camera: the entropy of
    each and of their combinations is measured, a missing value counting as one of its own.
    """

    measures: Annotated[list[DiversityMeasure], Field(min_length=1)] = ["label_entropy"]
    split: Literal["train", "all"] = "train"
    sample_per_subset: PositiveInt | None = None
    entropy_estimator: EntropyEstimator = "plug_in"
    columns: list[Annotated[str, Field(min_length=1)]] = []

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


class AugmentConfig(Section):
    """Say how training samples are varied; validation and test samples never are.

    With `views: K` every sample has K fixed variants, of which epoch e shows number (e - 1) modulo K: the first is
    the image itself, and what the frozen stages give for each can be kept. With `views: 0` every epoch draws afresh,
    and only pixels are kept. `flip` mirrors every other view, `crop` shifts by at most this share of the image,
    `colour` changes brightness, contrast and saturation by at most this factor.
    """

    views: Annotated[int, Field(ge=0, le=64)] = 1
    flip: bool = False
    crop: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    colour: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        varies = self.flip or self.crop > 0 or self.colour > 0
        if self.views > 1 and not varies:
            raise ValueError(f"views must be 1 when nothing varies, got {self.views}: set flip, crop or colour")
        if self.views == 1 and varies:
            raise ValueError("views must be 0 or at least 2 with flip, crop or colour, got 1: raise views")
        return self


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
    A group starts no more trials once one has reached `target`, a value of `metric`.
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
    heads: PositiveInt = 8
    warm_start: bool = True
    library: str | None = None
    num_workers_per_trial: PositiveInt = 1
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    mode: Literal["max", "min"] | None = None
    max_concurrent_trials: PositiveInt | None = None
    resources_per_trial: dict[str, PositiveFloat] | None = None
    space: SpaceConfig = SpaceConfig()
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: OptimizerName = "adam"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0

    @property
    def direction(self) -> Literal["max", "min"]:
        """Give the mode, by default the one that the metric implies."""
        return self.mode or ("min" if self.metric == "val_loss" else "max")

    @property
    def largest_batch(self) -> int:
        """Give the most samples that a batch of a trial has."""
        sizes = self.space.batch_size
        return self.batch_size if sizes is None else int(sizes.high if isinstance(sizes, Range) else max(sizes))

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
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    batch_norm: Literal["frozen", "train"] = "frozen"


class EvaluateConfig(Section):
    """Say how test results are bounded: bootstrap resamples, and their seed comes from the run's."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000


class ClusterConfig(Section):
    """Bound the waits on Ray: a stage in which nothing ends for `stall_timeout_s` is ended with an error.

    What counts is a block of samples, an epoch or a trial: the limit must be longer than the longest epoch.
    `autoscaling` says that nodes may join when work waits: then a plan that does not fit yet is no error.
    """

    stall_timeout_s: PositiveFloat = 1800.0
    autoscaling: bool = False


class ExperimentConfig(Section):
    """Hold the whole experiment file, resolved: every path absolute, every default filled in."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    storage_path: str = Field(default_factory=lambda: str(Path("~/ray_results").expanduser()))
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    pretrain: PretrainConfig | None = None
    diversity: DiversityConfig = DiversityConfig()
    grouping: GroupingConfig = GroupingConfig()
    augment: AugmentConfig = AugmentConfig()
    cache: CacheConfig = CacheConfig()
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

    @property
    def grouping_measures(self) -> list[DiversityMeasure]:
        """Give the measures that grouping stands on: by default the first profiled one."""
        return self.grouping.measures or self.diversity.measures[:1]
