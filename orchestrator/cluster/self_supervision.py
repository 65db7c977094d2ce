"""Trains SimSiam with TorchTrainer: DDP ranks, a checkpoint an epoch, the last epoch's backbone kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.ranks import Rank
from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.streams import DecodeImages, ImageShards
from orchestrator.cluster.training import TrainingJob, TrainingPlan, run_job
from orchestrator.cluster.workers import Workbench
from orchestrator.config import SimSiamConfig
from orchestrator.finetune.contracts import ImageStream, Samples
from orchestrator.finetune.image_batches import count_images
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.simsiam import new_simsiam
from orchestrator.finetune.simsiam_checkpoints import load_simsiam, save_simsiam
from orchestrator.finetune.simsiam_training import train_simsiam
from orchestrator.records import SimSiamPhase


@dataclass(frozen=True, kw_only=True)
class SimSiamJob(TrainingJob):
    """Hold one pretraining by SimSiam; `model_uri` is the file that receives the backbone's weights."""

    simsiam: SimSiamConfig

    @property
    def worker(self) -> Callable[[dict[str, Any]], Any]:
        """Give what every rank runs."""
        return simsiam_worker

    def decoder(self, samples: GroupSamples) -> Callable[[pa.Table], dict[str, NDArray[Any]]]:
        """Give what turns a block of streamed rows, labelled or not, into pixels and keys."""
        assert self.reader is not None
        return DecodeImages(self.reader)

    def images(self, samples: GroupSamples, world_size: int) -> Samples | ImageStream:
        """Give what a rank learns from: its share of the stream where there is one, else the cached samples."""
        if self.stream is None:
            return samples.train
        return ImageShards(
            num_samples=sum(block.num_rows for block in self.stream),
            batch_size=max(1, self.simsiam.batch_size // world_size),
        )


def run_simsiam(
    job: SimSiamJob, samples: GroupSamples, workbench: Workbench, plan: TrainingPlan, shape: ClusterShape
) -> SimSiamPhase:
    """Pretrain a backbone, and give what happened. Raises what training raises, and what `run_job` does."""
    return SimSiamPhase.model_validate_json(run_job(job, samples, workbench, plan, shape))


def simsiam_worker(arguments: dict[str, Any]) -> Any:
    """Train on one rank; rank 0 keeps a checkpoint an epoch and saves the backbone at the end."""
    rank: Rank[SimSiamJob] = Rank.of(arguments)
    job, workbench = rank.job, rank.workbench
    images = job.images(rank.samples, rank.world_size)
    model = new_simsiam(workbench.start(from_scratch=job.from_scratch), job.simsiam, seed=workbench.seed)
    result = train_simsiam(
        model,
        workbench.backbone.spec,
        images,
        job.simsiam,
        workbench.settings(rank.device, from_scratch=job.from_scratch),
        on_epoch=lambda end: rank.report(end.metrics, lambda directory: save_simsiam(end.take_state(), directory)),
        resume=rank.restored(load_simsiam),
    )
    nodes = rank.node_ids()
    if rank.number != 0:
        return None
    save_backbone(job.model_uri, model.backbone)
    return SimSiamPhase(
        num_images=count_images(images),
        settings=job.simsiam,
        history=result.history,
        seconds=result.seconds,
        num_workers=len(nodes),
        worker_resources=rank.resources,
    ).model_dump_json()
