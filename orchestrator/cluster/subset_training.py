"""Trains and tests the models of single subsets as tasks of one process, as many at a time as the cluster holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from orchestrator.cluster.failures import translate
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape, require_fit
from orchestrator.cluster.tasks import as_task
from orchestrator.cluster.training import TrainingJob, describe_model
from orchestrator.cluster.watchdog import Watchdog, gather, start_progress
from orchestrator.cluster.workers import Workbench, use_threads, worker_device
from orchestrator.config import TrainConfig
from orchestrator.data.reader import PixelReader
from orchestrator.errors import OrchestratorError
from orchestrator.finetune.classifier import predict_probabilities
from orchestrator.finetune.loop import EpochEnd
from orchestrator.finetune.models import load_model, save_model
from orchestrator.records import ModelCard


@dataclass(frozen=True, kw_only=True)
class PackingPlan:
    """Say what one task takes, and how long nothing may end."""

    resources: dict[str, float]
    max_retries: int
    stall_timeout_s: float

    @classmethod
    def of(cls, train: TrainConfig, *, use_gpu: bool, stall_timeout_s: float) -> PackingPlan:
        """Give a task what the experiment gives a worker, else one CPU, and a GPU where one is used."""
        default = {"CPU": 1.0, "GPU": 1.0} if use_gpu else {"CPU": 1.0}
        return cls(
            resources={**default, **(train.resources_per_worker or {})},
            max_retries=train.max_failures,
            stall_timeout_s=stall_timeout_s,
        )

    @property
    def uses_gpu(self) -> bool:
        """Tell whether a task has a GPU or a share of one."""
        return self.resources.get("GPU", 0.0) > 0


def train_packed(
    jobs: Sequence[TrainingJob],
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    plan: PackingPlan,
    shape: ClusterShape,
) -> Iterator[tuple[TrainingJob, ModelCard | OrchestratorError]]:
    """Train one model a job in one process each, and give each model's card, or its error, when it ends.

    `samples` go by the jobs' run names. A task whose node is lost begins again. Raises ResourceError when a task fits
    no node, WaitTimeoutError when none makes progress.
    """
    if not jobs:
        return
    require_fit(plan.resources, 1, shape, what="one training worker", remedy="Lower train.resources_per_worker.")
    progress = start_progress()
    task = as_task(_train, plan.resources, max_retries=plan.max_retries)
    # The longest first, so that none is left to run alone at the end.
    ordered = sorted(jobs, key=lambda job: -len(samples[job.run_name].train))
    submissions = [partial(task.remote, job, samples[job.run_name], workbench, plan, progress) for job in ordered]
    with Watchdog("training", wanted=plan.resources, stall_timeout_s=plan.stall_timeout_s) as watchdog:
        for index, outcome in gather(submissions, progress=progress, watchdog=watchdog):
            yield ordered[index], _read_card(outcome)


def _read_card(outcome: str | Exception) -> ModelCard | OrchestratorError:
    if isinstance(outcome, Exception):
        return translate(outcome, "a training run")
    return ModelCard.from_json(outcome, source="the trained model")


def _train(job: TrainingJob, samples: GroupSamples, workbench: Workbench, plan: PackingPlan, progress: Any) -> str:
    use_threads(plan.resources.get("CPU", 1.0))
    classifier = workbench.classifier(samples.class_counts)

    def on_epoch(end: EpochEnd) -> None:
        progress.step.remote()

    result = workbench.fine_tune(
        classifier,
        samples.train,
        samples.validation,
        job.hyperparameters,
        worker_device(plan.uses_gpu),
        on_epoch=on_epoch,
    )
    nodes = [ray.get_runtime_context().get_node_id()]
    card = describe_model(job, samples, workbench, result, nodes, plan.resources)
    return save_model(job.model_uri, classifier, card).to_json()


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """Name a model, and numbered rows of its subset to predict, in one block at least."""

    model_uri: str
    blocks: tuple[pa.Table, ...]

    @property
    def places(self) -> NDArray[np.int64]:
        """Give the number of each row [n], block by block."""
        return np.concatenate([np.asarray(block.column("position")) for block in self.blocks])


def predict_packed(
    jobs: Sequence[PredictionJob], reader: PixelReader, plan: PackingPlan, shape: ClusterShape
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Predict with one model a job, and give (index, probabilities float32 [n, K] of its rows in turn) as they end.

    Raises what the first task that fails ends with.
    """
    if not jobs:
        return
    require_fit(plan.resources, 1, shape, what="one test of a model", remedy="Lower train.resources_per_worker.")
    task = as_task(_predict, plan.resources, max_retries=plan.max_retries)
    submissions = [partial(task.remote, job, reader, plan) for job in jobs]
    with Watchdog("the test of the models", wanted=plan.resources, stall_timeout_s=plan.stall_timeout_s) as watchdog:
        for index, outcome in gather(submissions, watchdog=watchdog):
            if isinstance(outcome, Exception):
                raise translate(outcome, "the test of a model")
            yield index, outcome


def _predict(job: PredictionJob, reader: PixelReader, plan: PackingPlan) -> NDArray[np.float32]:
    use_threads(plan.resources.get("CPU", 1.0))
    classifier, card = load_model(job.model_uri)
    device = worker_device(plan.uses_gpu)
    found = [
        predict_probabilities(classifier, card.backbone, reader.read(block), device=device) for block in job.blocks
    ]
    return np.concatenate(found)
