"""The record of where pretrained weights come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config import SimSiamConfig
from orchestrator.records.base import Record, Value
from orchestrator.records.pretraining_inputs import PretrainingTarget, StartingWeights
from orchestrator.records.recipes import Hyperparameters
from orchestrator.records.reptile import ReptilePhase
from orchestrator.records.search import EpochMetrics


class SimSiamEpoch(Value):
    """Measure one epoch of SimSiam; the first is 1.

    `loss` is the mean negative cosine of the two views, from -1 to 1. `spread` is the standard deviation of unit
    outputs times the root of their length, the mean over their coordinates and the epoch's batches: near 1 when they
    point everywhere, 0 when all are the same (Chen and He, 2021, section 4.1).
    """

    epoch: int
    loss: float
    spread: float


class SupervisedPhase(Value):
    """Say how labels were learnt; `accuracy` is that of the best epoch on validation images."""

    objective: Literal["supervised"] = "supervised"
    num_images: int
    hyperparameters: Hyperparameters
    best_epoch: int
    accuracy: float
    history: list[EpochMetrics]
    seconds: float
    num_workers: int
    worker_resources: dict[str, float] = {}


class SimSiamPhase(Value):
    """Say how images were learnt from without their labels."""

    objective: Literal["simsiam"] = "simsiam"
    num_images: int
    settings: SimSiamConfig
    history: list[SimSiamEpoch]
    seconds: float
    num_workers: int
    worker_resources: dict[str, float] = {}


PretrainingPhase = Annotated[SupervisedPhase | SimSiamPhase | ReptilePhase, Field(discriminator="objective")]


class Pretraining(Value):
    """Say what weights were pretrained on and how, in the order of its phases.

    `classes` are those that were learnt, none by SimSiam. `num_images` counts the usable images of the source in all
    splits. `features` is the path, below the run directory, of the features of at most 1,024 of its training images
    (`diversity.source_features`), from which later runs measure how far theirs lie without the source; None where they
    are of other preprocessing than the run's. `neighbour_accuracy` is how often the nearest of these images have the
    label of another; None where fewer than two labels are known. `seconds` are those of all phases, each of them of
    every one of its `num_workers`, which held `worker_resources`, none in earlier records; `trained_in` is the run
    directory. `start` is None where the first phase began with random weights. `target` says which of the run's own
    images were learnt too, None where none were; all other fields are of the source alone.
    """

    data_uri: str
    data_fingerprint: str
    num_images: int
    classes: list[str]
    phases: list[PretrainingPhase]
    features: str | None
    neighbour_accuracy: float | None = None
    trained_in: str
    seconds: float
    start: StartingWeights | None = None
    target: PretrainingTarget | None = None

    @property
    def num_learnt(self) -> int:
        """Count the images of the source that were learnt, with labels or without: every phase has its part of them."""
        return max((phase.num_images for phase in self.phases), default=0)

    @property
    def learnt(self) -> set[str]:
        """Give the fingerprints of all data whose labels the weights know."""
        learnt = set() if self.start is None else set(self.start.learnt)
        if self.classes:
            learnt.add(self.data_fingerprint)
        if self.target is not None:
            learnt.add(self.target.data_fingerprint)
        return learnt


class TrainedPhase(Record):
    """Keep a phase that another one follows: `weights` is the path of its backbone below the run directory."""

    phase: PretrainingPhase
    weights: str
    digest: str
