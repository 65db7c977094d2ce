"""The records of networks: pretrained ones, candidates with their ranks, and fine-tuned models."""

from __future__ import annotations

from typing import Literal

from orchestrator.config import HeadsBy, Negatives
from orchestrator.records.balance import Balance
from orchestrator.records.base import Record, Value
from orchestrator.records.pretraining import Pretraining
from orchestrator.records.recipes import Hyperparameters
from orchestrator.records.search import EpochMetrics
from orchestrator.records.sources import SourceUse
from orchestrator.records.tasks import TaskClasses


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

    `weights` is the path of the safetensors file below the run directory, `digest` that of its content. `pretraining`
    says where the weights come from, where this run or an earlier one has trained them; None where nobody knows.
    """

    spec: BackboneSpec
    source: str
    weights: str
    digest: str
    num_stages: int
    feature_dim: int
    seconds: float = 0.0
    source_accuracy: float | None = None
    pretraining: Pretraining | None = None


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

    chosen: str
    reason: str
    num_halves: int
    candidates: list[RankedCandidate]


class ModelCard(Record):
    """Describe a trained model beside its `model.safetensors`: `model.json`.

    `classes` are those of its first task; `tasks` lists all where there are several, in the order of its outputs.
    Where `heads` is subset, `tasks` are the heads of its subsets by name, and `classes` those of all of them.
    `sparsity` is the share of the weights under an L1 penalty that are at most 0.001; None without one. `balance` says
    what a training with balanced classes repeats; None for any other. `source` is what the model was trained together
    with, if anything. `worker_resources` is what each of the workers held.
    """

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
    sparsity: float | None = None
    balance: Balance | None = None
    worker_resources: dict[str, float] = {}
    source: SourceUse | None = None
    tasks: list[TaskClasses] = []
    heads: HeadsBy = "column"

    @property
    def predicted_classes(self) -> list[list[str]]:
        """List the classes that a prediction has for each task; heads of subsets predict for one."""
        if self.heads == "subset":
            return [self.classes]
        return [found.classes for found in self.tasks] or [self.classes]

    @property
    def further_tasks(self) -> list[TaskClasses]:
        """List the tasks after the first that a prediction has; heads of subsets predict for one."""
        return [] if self.heads == "subset" else self.tasks[1:]

    @property
    def negatives(self) -> Negatives:
        """Say how the model tells images that are none of its classes; `none` where it does not."""
        return "none" if self.source is None else self.source.as_negatives

    @property
    def is_multi_label(self) -> bool:
        """Tell whether an image may have any number of the classes."""
        return self.hyperparameters.is_multi_label

    @property
    def class_counts(self) -> list[int]:
        """Count the classes of every task."""
        return [len(found.classes) for found in self.tasks] or [len(self.classes)]

    @property
    def output_counts(self) -> list[int]:
        """Count the outputs of every task: its classes, and one more that rejects where the model has learned to."""
        return [len(self.classes) + 1] if self.negatives == "reject" else self.class_counts
