"""Trains and tests the models of single subsets as tasks of one process, as many at a time as the cluster holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from orchestrator.cluster.failures import translate
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import DATA_TASK_CPU, ClusterShape, require_fit
from orchestrator.cluster.tasks import as_task
from orchestrator.cluster.training import TrainingJob, describe_model
from orchestrator.cluster.watchdog import Watchdog, gather, start_progress
from orchestrator.cluster.workers import Workbench, use_threads, worker_device
from orchestrator.config import TrainConfig
from orchestrator.data.reader import PixelReader
from orchestrator.errors import OrchestratorError
from orchestrator.evaluation.outliers import Scores, tell_outliers
from orchestrator.finetune.classifier import predict_probabilities
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.joint import without_extra
from orchestrator.finetune.loop import EpochEnd
from orchestrator.finetune.models import load_model, save_model
from orchestrator.records import ModelCard

Answer = TypeVar("Answer")


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

    `samples` go by the jobs' run names; companions that are the same object are one object for all tasks too. A task
    whose node is lost begins again. Raises ResourceError when a task fits no node, WaitTimeoutError when none makes
    progress.
    """
    if not jobs:
        return
    require_fit(plan.resources, 1, shape, what="one training worker", remedy="Lower train.resources_per_worker.")
    progress = start_progress()
    task = as_task(_train, plan.resources, max_retries=plan.max_retries)
    # The longest first, so that none is left to run alone at the end.
    ordered = sorted(jobs, key=lambda job: -len(samples[job.run_name].train))
    shared = _put_companions(samples[job.run_name] for job in ordered)
    submissions = [
        partial(task.remote, job, *_parted(samples[job.run_name], shared), workbench, plan, progress) for job in ordered
    ]
    with Watchdog("training", wanted=plan.resources, stall_timeout_s=plan.stall_timeout_s) as watchdog:
        for index, outcome in gather(submissions, progress=progress, watchdog=watchdog):
            yield ordered[index], _read_card(outcome)


def _put_companions(samples: Iterable[GroupSamples]) -> dict[int, ray.ObjectRef[Companion]]:
    """Put every companion into the object store once, by its identity: one of a large source is many megabytes."""
    companions = {id(found.companion): found.companion for found in samples if found.companion is not None}
    return {identity: ray.put(companion) for identity, companion in companions.items()}


def _parted(
    samples: GroupSamples, shared: Mapping[int, ray.ObjectRef[Companion]]
) -> tuple[GroupSamples, ray.ObjectRef[Companion] | None]:
    """Give samples without their companion, and where that is kept; None without one."""
    return replace(samples, companion=None), shared.get(id(samples.companion))


def _read_card(outcome: str | Exception) -> ModelCard | OrchestratorError:
    if isinstance(outcome, Exception):
        return translate(outcome, "a training run")
    return ModelCard.from_json(outcome, source="the trained model")


def _train(
    job: TrainingJob,
    samples: GroupSamples,
    companion: Companion | None,
    workbench: Workbench,
    plan: PackingPlan,
    progress: Any,
) -> str:
    use_threads(plan.resources.get("CPU", 1.0))
    samples = replace(samples, companion=companion)
    classifier = workbench.classifier(samples.output_counts)

    def on_epoch(end: EpochEnd) -> None:
        progress.step.remote()

    result = workbench.fine_tune(
        classifier,
        samples.train,
        samples.validation,
        job.hyperparameters,
        worker_device(plan.uses_gpu),
        on_epoch=on_epoch,
        companion=companion,
    )
    if companion is not None:
        classifier = without_extra(classifier, companion.num_dropped)
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


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedPrediction:
    """Hold the probabilities float32 [n, K] of a job's rows in turn, over the classes of its model alone.

    `outlier_scores` [n] are None where the model has none.
    """

    probabilities: NDArray[np.float32]
    outlier_scores: Scores | None


def predict_packed(
    jobs: Sequence[PredictionJob], reader: PixelReader, plan: PackingPlan, shape: ClusterShape
) -> Iterator[tuple[int, PackedPrediction]]:
    """Predict with one model a job, and give (index, what it predicts) as they end.

    Raises what the first task that fails ends with.
    """
    yield from _ask(_predict, [(job, reader, plan) for job in jobs], plan, shape)


def score_packed(
    model_uris: Sequence[str],
    blocks: Sequence[pa.Table],
    reader: PixelReader,
    plan: PackingPlan,
    shape: ClusterShape,
) -> Iterator[tuple[int, Scores]]:
    """Score the same catalogue rows, one block at least, by each of several models that tell outliers.

    Gives (index, scores [n] block by block) as they end. Images are decoded once, and lie in the object store for all
    models. Raises what the first task that fails ends with.
    """
    read = as_task(_read, {"CPU": DATA_TASK_CPU})
    pixels = [read.remote(reader, block) for block in blocks]
    yield from _ask(_score, [(uri, plan, *pixels) for uri in model_uris], plan, shape)


def _read(reader: PixelReader, block: pa.Table) -> NDArray[np.uint8]:
    return reader.read(block)


def _ask(
    work: Callable[..., Answer], arguments: Sequence[tuple[Any, ...]], plan: PackingPlan, shape: ClusterShape
) -> Iterator[tuple[int, Answer]]:
    """Do the work in one task for each of the arguments, and give (index, result) as they end."""
    if not arguments:
        return
    require_fit(plan.resources, 1, shape, what="one test of a model", remedy="Lower train.resources_per_worker.")
    task = as_task(work, plan.resources, max_retries=plan.max_retries)
    submissions = [partial(task.remote, *given) for given in arguments]
    with Watchdog("the test of the models", wanted=plan.resources, stall_timeout_s=plan.stall_timeout_s) as watchdog:
        for index, outcome in gather(submissions, watchdog=watchdog):
            if isinstance(outcome, Exception):
                raise translate(outcome, "the test of a model")
            yield index, outcome


def _predict(job: PredictionJob, reader: PixelReader, plan: PackingPlan) -> PackedPrediction:
    probabilities, scores = _told(job.model_uri, map(reader.read, job.blocks), plan)
    return PackedPrediction(probabilities=probabilities, outlier_scores=scores)


def _score(model_uri: str, plan: PackingPlan, *pixels: NDArray[np.uint8]) -> Scores:
    _, scores = _told(model_uri, pixels, plan)
    return np.zeros(0) if scores is None else scores


def _told(
    model_uri: str, pixels: Iterable[NDArray[np.uint8]], plan: PackingPlan
) -> tuple[NDArray[np.float32], Scores | None]:
    """Give what a model predicts of pixels in turn, and their outlier scores, None where it has none."""
    use_threads(plan.resources.get("CPU", 1.0))
    classifier, card = load_model(model_uri)
    device = worker_device(plan.uses_gpu)
    found = [predict_probabilities(classifier, card.backbone, part, device=device) for part in pixels]
    return tell_outliers(np.concatenate(found), card.negatives)
