"""Learns an initialisation by Reptile with TorchTrainer: tasks dealt over ranks, the last step's backbone kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.ranks import Rank
from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.training import TrainingJob, TrainingPlan, run_job
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ReptileConfig
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.reptile_checkpoints import load_reptile, save_reptile
from orchestrator.finetune.reptile_training import SubsetSamples, require_tasks, train_reptile
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
    """Pretrain a backbone, and give what happened. Raises what training raises, and what `run_job` does."""
    # Workers would say so too, but only after they were started again and again.
    require_tasks(SubsetSamples(samples=samples.train, subsets=job.train_subsets), job.reptile)
    return ReptilePhase.model_validate_json(run_job(job, samples, workbench, plan, shape))


def reptile_worker(arguments: dict[str, Any]) -> Any:
    """Train on one rank; rank 0 keeps a checkpoint at every point and saves the backbone at the end."""
    rank: Rank[ReptileJob] = Rank.of(arguments)
    job, samples, workbench = rank.job, rank.samples, rank.workbench
    # A copy: what the process has loaded is not to be changed.
    backbone = copy.deepcopy(workbench.start(from_scratch=job.from_scratch))
    result = train_reptile(
        backbone,
        workbench.backbone.spec,
        SubsetSamples(samples=samples.train, subsets=job.train_subsets),
        SubsetSamples(samples=samples.validation, subsets=job.validation_subsets),
        job.reptile,
        workbench.settings(rank.device, from_scratch=job.from_scratch),
        on_point=lambda end: rank.report(end.point, lambda directory: save_reptile(end.take_state(), directory)),
        resume=rank.restored(load_reptile),
    )
    nodes = rank.node_ids()
    if rank.number != 0:
        return None
    save_backbone(job.model_uri, backbone)
    return ReptilePhase(
        num_images=len(samples.train),
        num_subsets=result.num_subsets,
        settings=job.reptile,
        history=result.history,
        seconds=result.seconds,
        num_workers=len(nodes),
        worker_resources=rank.resources,
    ).model_dump_json()
