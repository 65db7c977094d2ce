"""Trains SimSiam with TorchTrainer: DDP ranks, a checkpoint an epoch, the last epoch's backbone kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint
from ray.train.torch import get_device

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.training import TrainingJob, TrainingPlan, node_ids, report_epoch, run_jobs
from orchestrator.cluster.workers import Workbench, use_threads
from orchestrator.config import SimSiamConfig
from orchestrator.errors import OrchestratorError
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.simsiam import new_simsiam
from orchestrator.finetune.simsiam_checkpoints import SimSiamState, load_simsiam, save_simsiam
from orchestrator.finetune.simsiam_training import SimSiamEnd, train_simsiam
from orchestrator.records import SimSiamPhase


@dataclass(frozen=True, kw_only=True)
class SimSiamJob(TrainingJob):
    """Hold one pretraining by SimSiam; `model_uri` is the file that receives the backbone's weights."""

    simsiam: SimSiamConfig

    @property
    def worker(self) -> Callable[[dict[str, Any]], Any]:
        """Give what every rank runs."""
        return simsiam_worker


def run_simsiam(
    job: SimSiamJob, samples: GroupSamples, workbench: Workbench, plan: TrainingPlan, shape: ClusterShape
) -> SimSiamPhase:
    """Pretrain a backbone, and give what happened. Raises what training raises, and what `run_jobs` does."""
    ((_, outcome),) = run_jobs([job], {job.run_name: samples}, workbench, plan, shape)
    if isinstance(outcome, OrchestratorError):
        raise outcome
    return SimSiamPhase.model_validate_json(outcome)


def simsiam_worker(loop_config: dict[str, Any]) -> Any:
    """Train on one rank; rank 0 keeps a checkpoint an epoch and saves the backbone at the end."""
    job: SimSiamJob = ray.get(loop_config["job"])
    samples: GroupSamples = ray.get(loop_config["samples"])
    workbench: Workbench = loop_config["workbench"]
    plan: TrainingPlan = loop_config["plan"]
    use_threads(plan.resources_per_worker.get("CPU", 1.0))
    context = ray.train.get_context()
    rank = context.get_world_rank()
    model = new_simsiam(workbench.start(from_scratch=job.from_scratch), job.simsiam, seed=workbench.seed)
    checkpoint = ray.train.get_checkpoint()
    result = train_simsiam(
        model,
        workbench.backbone.spec,
        samples.train,
        job.simsiam,
        workbench.settings(str(get_device()), from_scratch=job.from_scratch),
        on_epoch=lambda end: _report(end, rank),
        resume=None if checkpoint is None else _restore(checkpoint),
    )
    nodes = node_ids(context.get_world_size())
    if rank != 0:
        return None
    save_backbone(job.model_uri, model.backbone)
    return SimSiamPhase(
        num_images=len(samples.train),
        settings=job.simsiam,
        history=result.history,
        seconds=result.seconds,
        num_workers=len(nodes),
    ).model_dump_json()


def _report(end: SimSiamEnd, rank: int) -> None:
    report_epoch(end.metrics, rank, lambda directory: save_simsiam(end.take_state(), directory))


def _restore(checkpoint: Checkpoint) -> SimSiamState:
    with checkpoint.as_directory() as directory:
        return load_simsiam(Path(directory))
