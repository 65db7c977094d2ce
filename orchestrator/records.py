"""The frozen records that flow between stages: values and paths, never tensors or Ray handles."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.config import Deduplicate, DiversityMeasure, OptimizerName
from orchestrator.errors import RecordError


class Value(BaseModel):
    """Hold an immutable part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(Value):
    """Hold what one stage found, with the digest of the inputs that it was made from."""

    fingerprint: str = ""

    def to_json(self) -> str:
        """Write the record as JSON; not-a-number becomes null, which no record needs to tell from absence."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> Self:
        """Read a record. Raises RecordError naming `source` when the text is not such a record."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RecordError(
                f"{source} must be a {cls.__name__} record",
                value=f"{error.error_count()} mistakes: {error}",
                remedy="Remove the file to make it anew.",
            ) from error


class SubsetCount(Value):
    """Count the usable images of one subset by split, its quarantined rows, and its copies that were left out."""

    subset: str
    train: int
    val: int
    test: int
    quarantined: int
    copies_left_out: int = 0


class CopyCount(Value):
    """Count the pictures that several of the usable images show, as the data stands.

    `copies` are the images beyond the first of each picture, `copies_within_subsets` those beyond the first of it in
    their own subset. Of the pictures, `pictures_across_splits` lie in more than one split, and
    `pictures_of_several_labels` have more than one label.
    """

    copies: int
    copies_within_subsets: int
    pictures_across_splits: int
    pictures_of_several_labels: int


class Catalogue(Record):
    """Describe the table of samples and the cache of their decoded pixels.

    `table` and `quarantine` are paths below the run directory. `pixels` is the cache's directory below the run
    directory, None without one; it holds `num_cached` uint8 images of image_size x image_size x 3.
    `exact_copies` counts by decoded pixels, None where no image was opened; `near_copies` by looks, exact copies among
    them, None where they were not looked for.
    `data_fingerprint` is a digest of every usable sample's identity, subset, label, split and content, and of what it
    is kept together with; it is independent of how the samples are spread over files.
    """

    table: str
    quarantine: str
    pixels: str | None
    image_size: int
    num_images: int
    num_quarantined: int
    num_copies_left_out: int = 0
    num_cached: int
    quarantine_reasons: dict[str, int]
    labels: list[str]
    subsets: list[SubsetCount]
    deduplicate: Deduplicate = "none"
    exact_copies: CopyCount | None = None
    near_copies: CopyCount | None = None
    data_fingerprint: str
    seconds: float


class SubsetProfile(Value):
    """Measure one subset; entropies in nats, absent measures None.

    `label_entropy` is by the chosen estimator, `effective_classes` is its exponential, `imbalance_ratio` the most
    frequent class over the least frequent one. `attribute_entropies` are those of `diversity.columns` by name, and
    `joint_attribute_entropy` that of their combinations. `feature_diversity` is the Vendi score at equal N (rarefied),
    `feature_diversity_by_order` that of other orders, `raw_feature_diversity` that of all images, which is certain to
    lie in its bounds where features too long to be summed up exactly were sketched; None where it is exact. `h_score`,
    `log_evidence` (LogME) and `fisher_ratio` say how well the features part the classes; an infinite ratio is None.
    Intervals are of 95%, for the source that the subset is a sample of.
    """

    subset: str
    num_images: int
    num_classes: int
    label_counts: dict[str, int]
    label_entropy: float
    normalized_label_entropy: float
    effective_classes: float
    label_entropy_interval: tuple[float, float] | None = None
    imbalance_ratio: float | None = None
    attribute_entropies: dict[str, float] = {}
    joint_attribute_entropy: float | None = None
    pixel_entropy: float | None = None
    pixel_entropy_interval: tuple[float, float] | None = None
    feature_diversity: float | None = None
    feature_diversity_interval: tuple[float, float] | None = None
    feature_diversity_by_order: dict[str, float] = {}
    raw_feature_diversity: float | None = None
    raw_feature_diversity_bounds: tuple[float, float] | None = None
    h_score: float | None = None
    log_evidence: float | None = None
    fisher_ratio: float | None = None


class Profile(Record):
    """Hold the measures of every subset, ordered by name.

    `rarefied_to` is the number of images at which feature diversity is compared.
    """

    subsets: list[SubsetProfile]
    split: Literal["train", "all"]
    rarefied_to: int | None = None
    seconds: float = 0.0

    @property
    def attributes(self) -> list[str]:
        """Name the columns whose entropies were measured, in the order of `diversity.columns`."""
        return list(self.subsets[0].attribute_entropies) if self.subsets else []


Relation = Literal[
    "same domain, same task",
    "same domain, another task",
    "another domain, same task",
    "another domain, another task",
]


class SourceDistance(Value):
    """Say how far one subset lies from the source task, and how many of its classes the source knows."""

    subset: str
    distance: float
    num_classes: int
    shared_classes: int
    relation: Relation


class Distances(Record):
    """Hold squared Frechet distances of unit features, each between samples of `num_images` images.

    `between` has those of `subsets` from each other, row by row. `to_source` has those from the run's source task,
    `source_range` what 95% of samples of the source keep within of the rest of it; None where there is no source task.
    """

    num_images: int
    subsets: list[str]
    between: list[list[float]]
    source_range: float | None = None
    to_source: list[SourceDistance] = []


class Group(Value):
    """Name subsets of like diversity. `small_subsets` are those below `min_images`, put to the nearest group.

    `stability` has the share of bootstrap redraws in which each subset comes to this group; empty where not known.
    """

    name: str
    subsets: list[str]
    num_images: int
    score_range: tuple[float, float]
    small_subsets: list[str] = []
    stability: dict[str, float] = {}


class GroupingRule(Value):
    """Say into which group any subset falls, by its values of the grouping measures.

    A value is standardised by `means` and `deviations`, one for each measure. With `centres` [groups, measures], of
    standardised values, the nearest one is the subset's group. Else the subset's score, which is the value of a single
    measure as it stands and the mean of several standardised ones, is cut at `borders`, which ascend, one less than
    there are groups; on a border it goes up.
    """

    means: list[float]
    deviations: list[float]
    borders: list[float] = []
    centres: list[list[float]] = []


class Groups(Record):
    """Hold the groups in ascending order of diversity.

    `difference_p_value` says how likely the subsets differ as much as they do by chance; None where not known. `rule`
    puts the profile's subsets into their groups, and later ones too.
    """

    groups: list[Group]
    method: str
    measures: list[DiversityMeasure]
    difference_p_value: float | None = None
    rule: GroupingRule


class Hyperparameters(Value):
    """Hold one complete configuration of a fine-tuning run."""

    freeze_depth: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    optimizer: OptimizerName
    weight_decay: float = Field(ge=0)


class Assignment(Value):
    """Say which of the existing groups a later subset falls into, and what the group has for it.

    `values` are those of the grouping measures. `certainty` is the share of bootstrap redraws in which the subset
    comes to this group; None where it cannot be told. `is_small` says that it has less than `grouping.min_images`,
    `is_comparable` that it has as many images as the run compared feature diversity at: with fewer it scores too low.
    `unknown_classes` are those of its classes that no subset of the group has. `recipe` and `model`, a path below the
    run directory, are None before they are made.
    """

    subset: str
    group: str
    num_images: int
    values: dict[DiversityMeasure, float]
    certainty: float | None
    is_small: bool
    is_comparable: bool
    unknown_classes: list[str] = []
    recipe: Hyperparameters | None = None
    model: str | None = None


class Assignments(Record):
    """Hold the groups of the subsets in the data at `uri`, ordered by name.

    `unmeasured` are subsets without a usable image in the split that the profile measures.
    """

    uri: str
    assignments: list[Assignment]
    unmeasured: list[str]
    num_quarantined: int


class EpochMetrics(Value):
    """Measure one epoch; losses are mean cross-entropies in nats. The first epoch is 1."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float


TrialOrigin = Literal["fixed_rule", "warm_start", "shared", "promoted", "sampler"]


class Trial(Value):
    """Record one finished trial, failed ones included; `value` is its best metric over the epochs.

    A `stopped` trial was behind others at the same part of its schedule. `origin` says where its configuration came
    from: the fixed rule, the recipes of other searches, the list that all groups share, another group's find, or the
    group's sampler. `inputs` says what the suffix was fed from.
    """

    trial_id: str
    hyperparameters: Hyperparameters
    status: Literal["complete", "stopped", "failed"]
    value: float | None
    history: list[EpochMetrics]
    seconds: float
    error: str | None = None
    origin: TrialOrigin = "sampler"
    started: float = 0.0
    inputs: Literal["activations", "memory", "pixels"] = "pixels"


class RaceRun(Value):
    """Record one run of a finalist on a fresh re-split of its group's training and validation samples.

    `value` is None before the run has ended, and for one that failed.
    """

    group: str
    recipe: str
    hyperparameters: Hyperparameters
    resplit: int
    predicted_s: float = 0.0
    value: float | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def name(self) -> str:
        """Name the run."""
        return f"{self.group}-race-{self.recipe}-{self.resplit}"


class SearchResult(Record):
    """Hold every trial of one group's search."""

    group: str
    metric: str
    mode: Literal["max", "min"]
    trials: list[Trial]
    race: list[RaceRun] = []


class CostFigures(Value):
    """Hold what a probe measured on one worker: seconds and bytes for one sample.

    `forward_s` has an entry for each stage: a frozen forward pass. `train_s` and `validate_s` have one for each
    freeze depth from 0 to the number of stages: a training step of the suffix, and its forward pass.
    `activation_bytes` likewise: what a sample's activations take at that depth in memory; depth 0 has none. Rates are
    in bytes a second. `decode_s` is decoding an encoded image; `read_pixels_s` taking a decoded one from the cache.
    `peak_bytes` is what a whole trial takes of the `device_bytes` of a GPU at most; None where there was none to tell.
    """

    decode_s: float
    read_pixels_s: float
    forward_s: tuple[float, ...]
    train_s: tuple[float, ...]
    validate_s: tuple[float, ...]
    activation_bytes: tuple[int, ...]
    read_bytes_per_s: float
    write_bytes_per_s: float
    peak_bytes: int | None = None
    device_bytes: int | None = None


class CompiledCost(Value):
    """Hold what torch.compile does to the suffix of one freeze depth: seconds for a sample, and to compile."""

    train_s: float
    compile_s: float


class DepthCost(Value):
    """Say where trials of one freeze depth took their inputs from, and what an epoch cost.

    Seconds are of one worker and one epoch over the samples of all groups: as predicted from a probe with and without
    kept activations, and as measured over the search's trials, None where none ran. `num_epochs` counts what ran
    likewise: an epoch over a tenth of the samples is 0.1. `saving_s` is what keeping was predicted to save over the
    search, its build deducted; negative where it would not have paid. `is_compiled` says that trials of the depth
    went through torch.compile.
    """

    depth: int
    source: Literal["activations", "pixels", "images"]
    predicted_epoch_s: float
    predicted_uncached_epoch_s: float
    measured_epoch_s: float | None = None
    num_epochs: float = 0.0
    stored_bytes: int = 0
    saving_s: float = 0.0
    is_compiled: bool = False


class SearchCosts(Record):
    """Hold what a search knew of costs, and what it measured.

    `computed` and `reused` count entries of the activation cache, `build_seconds` is the pass that filled it.
    """

    depths: list[DepthCost] = []
    computed: int = 0
    reused: int = 0
    build_seconds: float = 0.0
    probe_seconds: float = 0.0


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


class BackboneSpec(Value):
    """Say how to build a backbone and how to prepare its pixels; enough to rebuild a model from its weights."""

    name: str
    kwargs: dict[str, bool | int | float | str] = {}
    image_size: int
    resize: Literal["crop", "squash"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class PretrainedBackbone(Record):
    """Describe the pretrained backbone that every trial starts from, as stored in the run directory.

    `weights` is the path of the safetensors file below the run directory, `digest` that of its content.
    """

    spec: BackboneSpec
    source: str
    weights: str
    digest: str
    num_stages: int
    feature_dim: int
    seconds: float = 0.0
    source_accuracy: float | None = None


class CandidateScores(Value):
    """Score one candidate backbone on a sample of one subset's training images.

    `num_images` counts all training images. `h_score` is by a shrunk covariance; an infinite `fisher_ratio` is None.
    `log_evidence_of_halves` has LogME of random halves of the sample, the same ones for every candidate.
    """

    subset: str
    num_images: int
    num_sampled: int
    num_classes: int
    log_evidence: float
    h_score: float
    fisher_ratio: float | None
    log_evidence_of_halves: list[float]


class CandidateMeasures(Record):
    """Hold what was measured of one candidate backbone, by subset in the order of their names.

    `forward_flops` are of one image, a multiplication and an addition counting as two; `images_per_second` is a
    forward pass on one core of the machine that ran the driver.
    """

    title: str
    parameters: int
    forward_flops: int
    images_per_second: float
    feature_dim: int
    subsets: list[CandidateScores]
    seconds: float


class SubsetRank(Value):
    """Rank one candidate on one subset: 1 is the best; `win_share` is of random halves in which it is the best."""

    subset: str
    num_sampled: int
    rank: float
    win_share: float
    log_evidence: float
    h_score: float
    fisher_ratio: float | None


class RankedCandidate(Value):
    """Weigh one candidate's fit to the data against its cost.

    `mean_rank` is over subsets, weighted by training images. `gap_interval` holds its mean rank less that of the first
    candidate in 95% of random halves of the images, None for the first; `is_equal_to_first` says that this reaches 0.
    """

    title: str
    parameters: int
    forward_flops: int
    images_per_second: float
    feature_dim: int
    mean_rank: float
    win_share: float
    gap_interval: tuple[float, float] | None
    is_equal_to_first: bool
    subsets: list[SubsetRank]


class BackboneRanking(Record):
    """Hold candidate backbones in the order of their mean rank by LogME, which one is chosen, and why."""

    data_fingerprint: str
    chosen: str
    reason: str
    num_halves: int
    candidates: list[RankedCandidate]


class ModelCard(Record):
    """Describe a trained model beside its `model.safetensors`: `model.json`."""

    group: str
    backbone: BackboneSpec
    classes: list[str]
    hyperparameters: Hyperparameters
    weights_digest: str
    pretrained_digest: str
    data_fingerprint: str
    subsets: list[str]
    best_epoch: int
    history: list[EpochMetrics]
    seconds: float
    num_workers: int
    world: list[str] = []


class Scores(Value):
    """Score predictions over `num_images` test images; measures that are undefined there are None."""

    num_images: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    macro_f1: float | None
    macro_auc: float | None
    cross_entropy: float | None
    confusion_matrix: list[list[int]]


class SubsetScores(Scores):
    """Score the test images of one subset over its group's classes."""

    subset: str


class Baseline(Value):
    """Score a control arm trained on the same data and tested on the same images.

    `accuracy_gain` is the recipe's accuracy minus the baseline's, with a paired bootstrap interval.
    """

    name: Literal["fixed_rule", "head_only", "from_scratch"]
    hyperparameters: Hyperparameters
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    seconds: float
    accuracy_gain: float | None
    accuracy_gain_interval: tuple[float, float] | None
    error: str | None = None


class BaselineResult(Record):
    """Hold the outcome of one trained control arm: which test images it got right, in the test table's order."""

    group: str
    name: Literal["fixed_rule", "head_only", "from_scratch"]
    hyperparameters: Hyperparameters
    seconds: float
    correct: list[bool] | None
    error: str | None = None


class Evaluation(Record, Scores):
    """Hold the test results of one group. Rows of the confusion matrix are true classes."""

    group: str
    classes: list[str]
    subsets: list[SubsetScores]
    baselines: list[Baseline]
    predictions: str
    seconds: float


class PooledComparison(Value):
    """Compare all groups' recipes with one baseline over the pooled test images, paired by image."""

    baseline: str
    num_images: int
    accuracy: float
    baseline_accuracy: float
    accuracy_gain: float
    accuracy_gain_interval: tuple[float, float]


class StageCost(Value):
    """Say what one stage cost in this run directory, in wall seconds of its last execution.

    `images` counts those that it went through, 0 where that says nothing. `cpus` and `gpus` are the cluster's at its
    end. `driver_bytes` is the most memory that the process which runs the stages has had up to then.
    """

    stage: str
    seconds: float
    trials: int = 0
    images: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    driver_bytes: int = 0


class Costs(Record):
    """Keep what every stage cost when it last ran."""

    stages: list[StageCost] = []


class Report(Record):
    """Hold everything that the report shows."""

    name: str
    catalogue: Catalogue
    profile: Profile
    groups: Groups
    searches: list[SearchResult]
    recipes: list[Recipe]
    models: list[ModelCard]
    evaluations: list[Evaluation]
    comparisons: list[PooledComparison]
    costs: list[StageCost]
    search_costs: SearchCosts | None = None
    rankings: list[BackboneRanking] = []
    distances: Distances | None = None
