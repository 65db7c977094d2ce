"""The experiment file as a whole, and the sections that train, judge and place it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from orchestrator.config.augmentation import AugmentConfig
from orchestrator.config.backbone import BackboneConfig, PretrainConfig
from orchestrator.config.base import DiversityMeasure, PositiveFloat, PositiveInt, PrecisionName
from orchestrator.config.data import DataConfig, Section
from orchestrator.config.diversity import DiversityConfig, GroupingConfig
from orchestrator.config.finetune import FineTuneConfig, HeadName, NonNegativeFloat, weights_by_name
from orchestrator.config.multi_label import require_labels_fit, with_implied
from orchestrator.config.search import CacheConfig, SearchConfig
from orchestrator.config.source import SourceConfig
from orchestrator.config.space import Range, require_fresh_draws

Seed = Annotated[int, Field(ge=0, lt=2**32)]
SeedName = Literal["split", "sampler", "trial", "loader"]
OnNegativeTransfer = Literal["report", "fallback", "regroup"]
TrainScope = Literal["group", "subset", "multitask"]
BatchNormMode = Literal["frozen", "train", "sync"]
HeadsBy = Literal["column", "subset"]

_OUTLIERS = "source.as_negatives outlier_exposure"


class TrainConfig(Section):
    """Say how the winner of each group is trained, in Ray Train's words.

    `batch_norm: frozen` keeps the statistics of every BatchNorm layer, `train` updates those of the stages
    that are not frozen. With several workers each then normalises by its own part of a batch; `sync` normalises by the
    whole of it, so that they train what one worker trains, but for rounding. One worker alone, and a network without
    BatchNorm, train the same with `sync` as with `train`. `precision: auto` is bf16 on a GPU that has it and fp32
    elsewhere. The search and the baselines use the same `batch_norm` and `precision`: what was tuned is what ships.

    `scope: group` trains a model for each group. `subset` trains, with the group's recipe, one more for each of its
    subsets: as Ray tasks, as many at a time as the cluster holds, where `num_workers` is 1. A subset with fewer than
    `grouping.min_images` images to train on keeps the group's model. A `source` is beside each of them too. `multitask`
    trains a model for each group with a head for `data.label` and for each of `data.tasks`, in the search and the
    baselines too; its validation accuracy and loss are the means over tasks. With `heads: subset` it has a head for
    each of the group's subsets instead, over the subset's own classes; an image is learnt and judged by the head of
    its subset alone.
    """

    scope: TrainScope = "group"
    heads: HeadsBy = "column"
    num_workers: PositiveInt = 1
    use_gpu: Literal[True, False, "auto"] = "auto"
    resources_per_worker: dict[str, PositiveFloat] | None = None
    max_failures: Annotated[int, Field(ge=0)] = 2
    num_to_keep: PositiveInt = 2
    precision: PrecisionName = "auto"
    batch_norm: BatchNormMode = "frozen"


class EpisodesConfig(Section):
    """Say which episodes the features of a group's test images are judged by.

    Each of `count` draws `ways` classes, `shots` images of each to make a prototype of, and `queries` others of each to
    be told.
    """

    ways: Annotated[int, Field(ge=2)] = 5
    shots: PositiveInt = 5
    queries: PositiveInt = 15
    count: Annotated[int, Field(ge=2)] = 600


class EvaluateConfig(Section):
    """Say how test results are bounded: bootstrap resamples, and their seed comes from the run's.

    `explanations` is how many of each group's most confident mistakes, and of its right answers, the report shows
    with what the model looked at; 0 shows none. `episodes` None draws none.
    With `on_negative_transfer` it is judged for every subset whether transfer helps it: its group's model beside models
    from scratch, of the head alone, of the subset alone, of all groups' samples, and, where there is a source, without
    it. They are trained on all tasks, and compared by the first; where subsets have heads, each is compared by its own.
    `report` says so; `fallback` also gives a subset the one of these that serves its validation images better, but for
    `data.tasks`; `regroup` moves a subset to where its validation images fare better, and trains the groups concerned
    again, once, where a network has one head. None trains none of these models.

    `label_shift` estimates how frequent classes are among each group's and each subset's test images without looking at
    their labels, corrects their probabilities, and compares both with the truth: by how often classes were taken for
    each other on validation (`confusion`: Lipton, Wang and Smola, 2018), or by expectation maximisation over calibrated
    probabilities (`em`: Saerens, Latinne and Decaestecker, 2002). Every task, and every subset's head, is corrected by
    its own predictions on validation.
    """

    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    explanations: Annotated[int, Field(ge=0)] = 3
    on_negative_transfer: OnNegativeTransfer | None = None
    episodes: EpisodesConfig | None = None
    label_shift: Literal["none", "confusion", "em"] = "none"


class ResourceCosts(Section):
    """Say what holding one CPU or GPU for an hour costs, by Ray's names, in a currency of yours.

    A node of 16 CPUs at 0.64 an hour is `{CPU: 0.04}`; where the CPUs come with the GPU, `{GPU: 2.5}`.
    """

    CPU: NonNegativeFloat = 0.0
    GPU: NonNegativeFloat = 0.0


class ClusterConfig(Section):
    """Bound the waits on Ray, and say what its resources cost.

    A stage in which nothing ends for `stall_timeout_s` is ended with an error. What counts is some blocks of
    samples, an epoch (of all folds), `pretrain.reptile.checkpoint_every` steps or a trial: the limit must be longer
    than the longest epoch.
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
    source: SourceConfig | None = None
    diversity: DiversityConfig = DiversityConfig()
    grouping: GroupingConfig = GroupingConfig()
    augment: AugmentConfig = AugmentConfig()
    cache: CacheConfig = CacheConfig()
    finetune: FineTuneConfig = FineTuneConfig()
    search: SearchConfig = SearchConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="before")
    @classmethod
    def _imply(cls, sections: Any) -> Any:
        return with_implied(sections)

    @model_validator(mode="after")
    def _sections_fit_each_other(self) -> Self:
        if self.backbone.weights == "pretrain" and self.pretrain is None:
            raise ValueError("backbone.weights must have a section pretrain, got pretrain: add pretrain.data.uri")
        unprofiled = set(self.grouping_measures) - set(self.diversity.measures)
        if unprofiled:
            raise ValueError(
                f"grouping.measures must be profiled, got {', '.join(sorted(unprofiled))}: add it to diversity.measures"
            )
        require_labels_fit(self)
        self._require_tasks()
        self._require_learnable_target()
        require_fresh_draws(self.augment, self.search.space)
        if self.data.verify == "none" and self.backbone.candidates:
            raise ValueError("backbone.candidates must open images, got data.verify none: set it to decode")
        if self.data.verify == "none" and self.diversity.measures != ["label_entropy"]:
            raise ValueError(
                "diversity.measures beyond label_entropy must open images, got data.verify none: set it to decode"
            )
        if self.source is not None and self.source.uri is not None:
            self._require_like_data(self.source.uri)
        several = (
            _OUTLIERS if self._learns_outliers else None,
            self.several_heads,
            "data.label_separator" if self.data.is_multi_label else None,
        )
        for section in filter(None, several):
            self._require_linear_heads(section)
        return self

    def _require_learnable_target(self) -> None:
        if self.pretrains_on_target:
            learnt = "with pretrain.with_target"
        elif self.learns_own_subsets:
            learnt = "where pretrain has no data"
        else:
            return
        if self.data.verify == "none":
            raise ValueError(f"data.verify must be decode {learnt}, got none: its images are trained on")
        task = self.own_pretraining
        if self.search.folds > 1 and task is not None and task.needs_labels:
            raise ValueError(
                f"search.folds must be 1 {learnt}, got {self.search.folds}: folds would judge by images that the "
                "weights have learnt"
            )

    def _require_plain_transfer(self) -> None:
        """Refuse to mend what transfer does where another model would not fit in with the rest of the run."""
        mode = self.evaluate.on_negative_transfer
        if mode is None:
            return
        if mode != "report" and self.data.tasks:
            raise ValueError(
                f"evaluate.on_negative_transfer must be report with data.tasks, got {mode}: "
                "verdicts are of one head, and another model would change what the others predict"
            )
        if mode == "regroup" and self.train.heads == "subset":
            raise ValueError(
                "evaluate.on_negative_transfer must be report or fallback with heads of subsets (train.heads), "
                "got regroup: set it to fallback, for no other group's network has a head for a subset that moves there"
            )
        if mode != "report" and self.train.scope == "subset":
            raise ValueError(
                f"evaluate.on_negative_transfer must be report with train.scope subset, got {mode}: "
                "a subset would have two models in the end, its own and the one that transfer gives it"
            )

    def _require_linear_heads(self, section: str) -> None:
        has_outliers = section == _OUTLIERS
        allowed = ("linear", "cosine") if has_outliers else ("linear",)
        reason = "outliers are of no class" if has_outliers else "the outputs of all are one layer"
        others = {self.finetune.head, *(self.search.space.head or [])} - set(allowed)
        if others:
            raise ValueError(
                f"finetune.head must be {' or '.join(allowed)} with {section}, got {', '.join(sorted(others))}: "
                f"{reason}, set it to {allowed[0]}, and search no other"
            )

    @property
    def several_heads(self) -> str | None:
        """Name what gives a network several heads; None where it has one."""
        if self.data.tasks:
            return "data.tasks"
        return "heads of subsets (train.heads)" if self.train.heads == "subset" else None

    @property
    def learns_own_subsets(self) -> bool:
        """Tell whether the source task learns from the run's own subsets."""
        task = self.own_pretraining
        return task is not None and task.data is None

    @property
    def own_pretraining(self) -> PretrainConfig | None:
        """Give the source task that this run learns; None where its weights come from elsewhere."""
        return self.pretrain if self.backbone.weights == "pretrain" else None

    @property
    def few_shot_heads(self) -> tuple[HeadName, ...]:
        """Name the heads that a group with few images a class is searched with by default.

        Prototypes and cosines know one class an image and one head, and outliers are of no class.
        """
        if self.several_heads is not None or self.data.is_multi_label:
            return ("linear",)
        return ("cosine",) if self._learns_outliers else ("prototype", "cosine")

    @property
    def _learns_outliers(self) -> bool:
        """Tell whether equal probabilities are asked for on a source, whose images then are of no class."""
        return self.source is not None and self.source.as_negatives == "outlier_exposure"

    @property
    def pulls_features(self) -> bool:
        """Tell whether a penalty pulls features of source and target together, which frozen stages cannot follow."""
        return self.source is not None and self.source.penalty != "none"

    def _require_like_data(self, uri: str) -> None:
        if self.data.image_root is not None:
            raise ValueError(
                f"source.uri must have an image root of its own, got {uri}: write source.data with uri and image_root"
            )
        if self.data.verify == "none":
            raise ValueError("data.verify must be decode with a source that is read alike, got none: set it to decode")

    def _require_tasks(self) -> None:
        scope, tasks, heads = self.train.scope, self.data.tasks, self.several_heads
        if scope == "multitask" and heads is None:
            raise ValueError(
                "train.scope multitask must have data.tasks, got none: name further columns of labels, or set "
                "train.heads to subset"
            )
        if tasks and scope != "multitask":
            raise ValueError(f"data.tasks must have train.scope multitask, got {scope}: set it, or leave the tasks out")
        if self.pretrain is not None and self.pretrain.data is not None and self.pretrain.data.tasks:
            raise ValueError("pretrain.data.tasks must be empty, got some: a source task is one task")
        if self.source is not None and self.source.data is not None and self.source.data.tasks:
            raise ValueError("source.data.tasks must be empty, got some: a source is learnt by its label alone")
        weights = self.finetune.task_weighting
        by_name = weights_by_name(weights)
        fixed = weights if isinstance(weights, str) else "fixed numbers"
        weighings = {fixed, *(self.search.space.task_weighting or [])} - {"equal"}
        if heads is None and weighings:
            raise ValueError(
                "finetune.task_weighting must be equal without data.tasks or train.heads subset, "
                f"got {', '.join(sorted(weighings))}: leave it out, and do not search it"
            )
        if heads is not None and self.source is not None:
            raise ValueError(f"source must be left out where there are {heads}, got one: train its task by itself")
        self._require_plain_transfer()
        mixings = {self.finetune.mixing, *(self.search.space.mixing or [])} - {"none"}
        if heads is not None and mixings:
            raise ValueError(
                f"finetune.mixing must be none where there are {heads}, got {', '.join(sorted(mixings))}: "
                "search or set it to none"
            )
        if tasks and by_name is not None:
            raise ValueError(
                f"finetune.task_weighting must be a name or a list with data.tasks, got {', '.join(by_name)} by name: "
                "write the numbers in the order of the tasks"
            )
        if tasks and isinstance(weights, tuple) and len(weights) != len(self.data.task_names):
            raise ValueError(
                f"finetune.task_weighting must have a number for each of the {len(self.data.task_names)} tasks, "
                f"got {len(weights)}: correct it"
            )
        self._require_plain_heads()

    def _require_plain_heads(self) -> None:
        """Refuse what does not go with a head for each subset."""
        if self.train.heads == "column":
            return
        if self.train.scope != "multitask":
            raise ValueError(
                f"train.heads subset must have train.scope multitask, got {self.train.scope}: set it, "
                "or leave heads out"
            )
        weighting = self.finetune.task_weighting
        is_balanced = self.finetune.balanced or True in (self.search.space.balanced or [])
        for rule, got, remedy in (
            ("data.tasks must be empty", ", ".join(self.data.tasks), "leave the tasks out"),
            (
                "finetune.task_weighting must be a name or a mapping",
                "" if isinstance(weighting, str) or weights_by_name(weighting) else f"{len(weighting)} numbers",
                "give each by the name of its subset",
            ),
            ("finetune.balanced must be false", "true" if is_balanced else "", "leave it out, or weigh classes"),
        ):
            if got:
                raise ValueError(f"{rule} with train.heads subset, got {got}: {remedy}")

    def seed_of(self, purpose: SeedName) -> int:
        """Give the seed of one of the things that are random."""
        own: int | None = getattr(self.seeds, purpose)
        return self.seed if own is None else own

    @property
    def pretrains_on_target(self) -> bool:
        """Tell whether the run's own training images are a part of its source task."""
        task = self.own_pretraining
        return task is not None and task.with_target is not None

    @property
    def source_data(self) -> DataConfig | None:
        """Say where the source is and how to read it; None without one. It is one subset, whatever it names.

        A column of labels is looked for only where labels are needed.
        """
        if self.source is None or self.source.uri is None:
            return None if self.source is None else self.source.data
        label = self.data.label if self.source.labels == "every" else None
        return self.data.model_copy(update={"uri": self.source.uri, "subset": None, "label": label})

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
