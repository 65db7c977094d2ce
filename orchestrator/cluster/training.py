"""Trains the winner of each group with TorchTrainer: DDP ranks, a checkpoint an epoch, the best epoch shipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.train import (
    CheckpointConfig,
    DataConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer

from orchestrator import storage
from orchestrator.cluster.failures import translate
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.ranks import Rank, rank_arguments
from orchestrator.cluster.resources import (
    ClusterShape,
    models_at_once,
    require_fit,
    require_reading_cpu,
    uses_gpu,
    worker_resources,
)
from orchestrator.cluster.session import set_environment
from orchestrator.cluster.source_streaming import with_stream
from orchestrator.cluster.streams import STREAM, shard_batches
from orchestrator.cluster.watchdog import Watchdog, beside_driver, gather, start_progress
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ExperimentConfig
from orchestrator.data.reader import PixelReader
from orchestrator.data.streamed_source import StreamedSource
from orchestrator.data.targets import Targets
from orchestrator.errors import OrchestratorError
from orchestrator.finetune.balancing import balance_of
from orchestrator.finetune.checkpoints import load_state, save_state
from orchestrator.finetune.contracts import Labels
from orchestrator.finetune.joint import without_extra
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.loop import FineTuneResult
from orchestrator.finetune.models import save_model
from orchestrator.records import Hyperparameters, ModelCard, SourceUse

TRAIN_VERSION = 1
_CARD = "the trained model"


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """Hold what the card of a model says of it before it is trained.

    `source` describes the companion of its samples.
    """

    group: str
    subsets: tuple[str, ...]
    hyperparameters: Hyperparameters
    fingerprint: str
    data_fingerprint: str
    from_scratch: bool = False
    source: SourceUse | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingJob(ModelJob):
    """Hold one model to train: from what, how, and where it goes.

    `model_uri` receives the model, `storage_uri` Ray Train's checkpoints. `run_name` carries the fingerprint:
    Ray Train resumes a run of the same name. `stream` holds the blocks of training samples when the data is
    larger than the pixel cache, None when every sample is cached; so does `source_stream` of the source beside it.
    """

    run_name: str
    model_uri: str
    storage_uri: str
    stream: tuple[pa.Table, ...] | None = None
    reader: PixelReader | None = None
    source_stream: StreamedSource | None = None

    @property
    def is_streaming(self) -> bool:
        """Tell whether tasks read images while this is trained."""
        return self.stream is not None or self.source_stream is not None

    @property
    def worker(self) -> Callable[[dict[str, Any]], Any]:
        """Give what every rank runs; rank 0 gives the record of the training as JSON."""
        return train_worker

    def decoder(self, samples: GroupSamples) -> Callable[[pa.Table], dict[str, NDArray[Any]]]:
        """Give what turns a block of streamed rows into pixels and what is learnt of them."""
        assert self.reader is not None
        return _Decode(self.reader, _targets(self, samples))


Job = TypeVar("Job", bound=TrainingJob)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Say how the workers of one model share the cluster."""

    num_workers: int
    resources_per_worker: dict[str, float]
    use_gpu: bool
    max_failures: int
    num_to_keep: int
    models_at_once: int
    stall_timeout_s: float

    @classmethod
    def of(cls, config: ExperimentConfig, jobs: Sequence[TrainingJob], shape: ClusterShape) -> TrainingPlan:
        """Share the cluster among the workers of as many of the jobs' models as fit at the same time."""
        train = config.train
        use_gpu = uses_gpu(train, shape)
        streaming = any(job.is_streaming for job in jobs)
        resources = worker_resources(train, shape, use_gpu=use_gpu, streaming=streaming, num_groups=len(jobs))
        return cls(
            num_workers=train.num_workers,
            resources_per_worker=resources,
            models_at_once=models_at_once(
                resources, train.num_workers, shape, streaming=streaming, num_models=len(jobs)
            ),
            use_gpu=use_gpu,
            max_failures=train.max_failures,
            num_to_keep=train.num_to_keep,
            stall_timeout_s=config.cluster.stall_timeout_s,
        )


def train_groups(
    jobs: Sequence[TrainingJob],
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    plan: TrainingPlan,
    shape: ClusterShape,
) -> Iterator[tuple[TrainingJob, ModelCard | OrchestratorError]]:
    """Train one model a job, as many at a time as fit, and give each model's card, or its error, when it ends.

    `samples` go by the jobs' run names. Raises what `run_jobs` raises.
    """
    for job, outcome in run_jobs(jobs, samples, workbench, plan, shape):
        yield job, outcome if isinstance(outcome, OrchestratorError) else ModelCard.from_json(outcome, source=_CARD)


def run_jobs(
    jobs: Sequence[Job],
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    plan: TrainingPlan,
    shape: ClusterShape,
) -> Iterator[tuple[Job, str | OrchestratorError]]:
    """Run the workers of each job, as many jobs at a time as fit, and give its record as JSON, or its error.

    `samples` go by the jobs' run names.

    Raises ResourceError when the workers of one model do not fit the cluster together, WaitTimeoutError when no
    rank makes progress.
    """
    require_fit(
        plan.resources_per_worker,
        plan.num_workers,
        shape,
        what=f"{plan.num_workers} training workers",
        remedy="Lower train.num_workers or train.resources_per_worker.",
    )
    if any(job.is_streaming for job in jobs):
        require_reading_cpu(plan.resources_per_worker, plan.num_workers, shape)
    wanted = {name: amount * plan.num_workers for name, amount in plan.resources_per_worker.items()}
    progress = start_progress()
    # Ray Train's controller goes where its caller is: beside the driver no other node's loss can end the run.
    task = ray.remote(_train).options(num_cpus=0, max_retries=0, scheduling_strategy=beside_driver())
    submissions = [partial(task.remote, job, samples[job.run_name], workbench, plan, progress) for job in jobs]
    with Watchdog("training", wanted=wanted, stall_timeout_s=plan.stall_timeout_s) as watchdog:
        finished = gather(submissions, progress=progress, watchdog=watchdog, limit=plan.models_at_once)
        for index, outcome in finished:
            yield jobs[index], _finish(jobs[index], outcome)


def run_job(
    job: TrainingJob, samples: GroupSamples, workbench: Workbench, plan: TrainingPlan, shape: ClusterShape
) -> str:
    """Run the workers of one job, and give its record as JSON. Raises its error, and what `run_jobs` raises."""
    ((_, outcome),) = run_jobs([job], {job.run_name: samples}, workbench, plan, shape)
    if isinstance(outcome, OrchestratorError):
        raise outcome
    return outcome


def _finish(job: TrainingJob, outcome: str | Exception) -> str | OrchestratorError:
    if isinstance(outcome, Exception):
        return translate(outcome, "a training run")
    # The model is written: what is left of the training would only fill the disk.
    storage.delete(storage.join(job.storage_uri, job.run_name))
    return outcome


def _train(job: TrainingJob, samples: GroupSamples, workbench: Workbench, plan: TrainingPlan, progress: Any) -> str:
    set_environment()
    file_system, path = storage.resolve(job.storage_uri)
    callbacks: list[Any] = [_Step(progress)]
    trainer = TorchTrainer(
        job.worker,
        train_loop_config=rank_arguments(job, samples, workbench, plan.resources_per_worker),
        scaling_config=ScalingConfig(
            num_workers=plan.num_workers, use_gpu=plan.use_gpu, resources_per_worker=plan.resources_per_worker
        ),
        run_config=RunConfig(
            name=job.run_name,
            storage_path=path,
            storage_filesystem=file_system,
            failure_config=FailureConfig(max_failures=plan.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=plan.num_to_keep),
            callbacks=callbacks,
        ),
        datasets=None if job.stream is None else {STREAM: _decoded(job, samples)},
        dataset_config=None if job.stream is None else WholeSplit(),
    )
    result: Any = trainer.fit()
    if result.error is not None:
        raise result.error
    return str(result.return_value)


def train_worker(arguments: dict[str, Any]) -> Any:
    """Train on one rank; rank 0 keeps a checkpoint an epoch and saves the model of the best one at the end."""
    rank: Rank[TrainingJob] = Rank.of(arguments)
    job, samples, workbench = rank.job, rank.samples, rank.workbench
    classifier = workbench.classifier(samples.output_counts, from_scratch=job.from_scratch)
    companion = with_stream(samples.companion, job.source_stream, rank)
    result = workbench.fine_tune(
        classifier,
        samples.train if job.stream is None else _stream(job, job.stream, samples, rank.world_size),
        samples.validation,
        samples.weighted(job.hyperparameters),
        rank.device,
        from_scratch=job.from_scratch,
        on_epoch=lambda end: rank.report(end.metrics, lambda directory: save_state(end.state, directory)),
        resume=rank.restored(load_state),
        companion=companion,
    )
    nodes = rank.node_ids()
    if rank.number != 0:
        return None
    if companion is not None:
        classifier = without_extra(classifier, companion.num_dropped)
    card = describe_model(job, samples, workbench, result, nodes, rank.resources)
    return save_model(job.model_uri, classifier, card).to_json()


def describe_model(
    job: ModelJob,
    samples: GroupSamples,
    workbench: Workbench,
    result: FineTuneResult,
    nodes: list[str],
    resources: dict[str, float],
) -> ModelCard:
    """Write the card of a trained model, as yet without the digest of its weights."""
    return ModelCard(
        fingerprint=job.fingerprint,
        group=job.group,
        backbone=workbench.backbone.spec,
        classes=list(samples.classes),
        hyperparameters=job.hyperparameters,
        weights_digest="",
        pretrained_digest="none" if job.from_scratch else workbench.backbone.digest,
        data_fingerprint=job.data_fingerprint,
        subsets=list(job.subsets),
        best_epoch=result.best_epoch,
        history=list(result.history),
        seconds=result.seconds,
        num_workers=len(nodes),
        world=nodes,
        sparsity=result.sparsity,
        balance=balance_of(
            samples.train.labels,
            samples.classes,
            job.hyperparameters,
            seed=workbench.order_seed,
            num_stages=workbench.backbone.num_stages,
        ),
        source=job.source,
        tasks=list(samples.tasks),
        heads=samples.heads,
        worker_resources=resources,
    )


class _Step(UserCallback):
    """Tell the driver of every epoch; Ray Train calls this in its controller."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
        self._progress.step.remote()


class WholeSplit(DataConfig):
    """Split a stream over the ranks without dropping rows; Ray's own split evens the shares by dropping."""

    def configure(
        self,
        datasets: dict[str, Any],
        world_size: int,
        worker_handles: Any,
        worker_node_ids: Any,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Give every rank its share of each data set."""
        shares: list[dict[str, Any]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            for share, iterator in zip(
                shares,
                dataset.streaming_split(world_size, equal=False, locality_hints=worker_node_ids),
                strict=True,
            ):
                share[name] = iterator
        return shares


@dataclass(frozen=True)
class _Decode:
    """Turn a block of catalogue rows into decoded pixels and what they are learnt by."""

    reader: PixelReader
    targets: Targets

    def __call__(self, block: pa.Table) -> dict[str, NDArray[Any]]:
        return {"pixels": self.reader.read(block), "label": self.targets.of_rows(block)}


def _decoded(job: TrainingJob, samples: GroupSamples) -> Any:
    assert job.stream is not None
    blocks = ray.data.from_arrow(list(job.stream)).randomize_block_order()
    return blocks.map_batches(
        job.decoder(samples),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=1,
    )


def _stream(job: TrainingJob, blocks: Sequence[pa.Table], samples: GroupSamples, world_size: int) -> _ShardStream:
    batch_size = max(1, job.hyperparameters.batch_size // world_size)
    return _ShardStream(blocks, _targets(job, samples), batch_size)


def _targets(job: TrainingJob, samples: GroupSamples) -> Targets:
    return Targets(
        classes=samples.classes,
        tasks=samples.tasks,
        heads=samples.heads,
        is_multi_label=job.hyperparameters.is_multi_label,
    )


class _ShardStream:
    """Give this rank's share of a streamed epoch; order is mixed within a buffer, and not kept by a resume."""

    def __init__(self, blocks: Sequence[pa.Table], targets: Targets, batch_size: int) -> None:
        self._blocks = blocks
        self._targets = targets
        self._batch_size = batch_size

    @property
    def num_samples(self) -> int:
        """Count the samples of all ranks."""
        return sum(block.num_rows for block in self._blocks)

    @property
    def no_labels(self) -> Labels:
        """Give the labels of no sample."""
        return self._targets.of_rows(self._blocks[0].slice(0, 0))

    def count_labels(self) -> LabelCounts:
        """Count the labels of all ranks' samples."""
        return LabelCounts.added(LabelCounts.of(self._targets.of_rows(block)) for block in self._blocks)

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        """Iterate over the batches of one epoch."""
        for batch in shard_batches(self._batch_size, epoch):
            yield batch["pixels"], batch["label"]
