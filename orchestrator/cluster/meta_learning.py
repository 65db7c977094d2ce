"""Learns an initialisation by Reptile with TorchTrainer: tasks dealt over ranks, the last step's backbone kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from numpy.typing import NDArray
from ray.train import Checkpoint
from ray.train.torch import get_device

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.training import TrainingJob, TrainingPlan, node_ids, report_epoch, run_jobs
from orchestrator.cluster.workers import Workbench, use_threads
from orchestrator.config import ReptileConfig
from orchestrator.errors import OrchestratorError
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.reptile_checkpoints import ReptileState, load_reptile, save_reptile
from orchestrator.finetune.reptile_training import ReptileEnd, SubsetSamples, require_tasks, train_reptile
from orchestrator.records import Hyperparameters, ReptilePhase


@dataclass(frozen=True, kw_only=True)
class ReptileJob(TrainingJob):
    """Hold one pretraining by Reptile; `model_uri` is the file that receives the backbone's weights.

    The subsets are numbers, one for each training and for each validation sample.
    """

    reptile: ReptileConfig
    train_subsets: NDArray[np.int64]
    validation_subsets: NDArray[np.int64]

    @property
    def worker(self) -> Callable[[dict[str, Any]], Any]:
        """Give what every rank runs."""
        return reptile_worker


def inner_hyperparameters(config: ReptileConfig) -> Hyperparameters:
    """Give the hyperparameters of the training on one task; its epoch is the inner steps."""
    return Hyperparameters(
        freeze_depth=0,
        learning_rate=config.inner_learning_rate,
        epochs=1,
        batch_size=config.batch_size,
        optimizer=config.inner_optimizer,
        weight_decay=0.0,
    )


def run_reptile(
    job: ReptileJob, samples: GroupSamples, workbench: Workbench, plan: TrainingPlan, shape: ClusterShape
) -> ReptilePhase:
    """Pretrain a backbone, and give what happened. Raises what training raises, and what `run_jobs` does."""
    # Workers would say so too, but only after they were started again and again.
    require_tasks(SubsetSamples(samples=samples.train, subsets=job.train_subsets), job.reptile)
    ((_, outcome),) = run_jobs([job], {job.run_name: samples}, workbench, plan, shape)
    if isinstance(outcome, OrchestratorError):
        raise outcome
    return ReptilePhase.model_validate_json(outcome)


def reptile_worker(loop_config: dict[str, Any]) -> Any:
    """Train on one rank; rank 0 keeps a checkpoint at every point and saves the backbone at the end."""
    job: ReptileJob = ray.get(loop_config["job"])
    samples: GroupSamples = ray.get(loop_config["samples"])
    workbench: Workbench = loop_config["workbench"]
    plan: TrainingPlan = loop_config["plan"]
    use_threads(plan.resources_per_worker.get("CPU", 1.0))
    context = ray.train.get_context()
    rank = context.get_world_rank()
    # A copy: what the process has loaded is not to be changed.
    backbone = copy.deepcopy(workbench.start(from_scratch=job.from_scratch))
    checkpoint = ray.train.get_checkpoint()
    result = train_reptile(
        backbone,
        workbench.backbone.spec,
        SubsetSamples(samples=samples.train, subsets=job.train_subsets),
        SubsetSamples(samples=samples.validation, subsets=job.validation_subsets),
        job.reptile,
        workbench.settings(str(get_device()), from_scratch=job.from_scratch),
        on_point=lambda end: _report(end, rank),
        resume=None if checkpoint is None else _restore(checkpoint),
    )
    nodes = node_ids(context.get_world_size())
    if rank != 0:
        return None
    save_backbone(job.model_uri, backbone)
    return ReptilePhase(
        num_images=len(samples.train),
        num_subsets=result.num_subsets,
        settings=job.reptile,
        history=result.history,
        seconds=result.seconds,
        num_workers=len(nodes),
    ).model_dump_json()


def _report(end: ReptileEnd, rank: int) -> None:
    report_epoch(end.point, rank, lambda directory: save_reptile(end.take_state(), directory))


def _restore(checkpoint: Checkpoint) -> ReptileState:
    with checkpoint.as_directory() as directory:
        return load_reptile(Path(directory))
