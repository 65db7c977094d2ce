"""One rank of a training by Ray Train: what it is given, and what it tells."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import ray
import ray.train
import torch.distributed
from ray.train import Checkpoint
from ray.train.torch import get_device

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.workers import Workbench, use_threads
from orchestrator.records import Value

Job = TypeVar("Job")
State = TypeVar("State")


def rank_arguments(
    job: object, samples: GroupSamples, workbench: Workbench, resources: dict[str, float]
) -> dict[str, Any]:
    """Give the `train_loop_config` from which `Rank.of` reads; `resources` are those of one worker."""
    return {"job": ray.put(job), "samples": ray.put(samples), "workbench": workbench, "resources": resources}


@dataclass(frozen=True, kw_only=True)
class Rank(Generic[Job]):
    """Hold what a rank trains, and with what; `number` counts ranks from 0."""

    job: Job
    samples: GroupSamples
    workbench: Workbench
    resources: dict[str, float]
    number: int
    world_size: int
    device: str

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Self:
        """Take up what this process was given, with the threads of its CPUs."""
        use_threads(arguments["resources"].get("CPU", 1.0))
        context = ray.train.get_context()
        return cls(
            job=ray.get(arguments["job"]),
            samples=ray.get(arguments["samples"]),
            workbench=arguments["workbench"],
            resources=arguments["resources"],
            number=context.get_world_rank(),
            world_size=context.get_world_size(),
            device=str(get_device()),
        )

    def restored(self, load: Callable[[Path], State]) -> State | None:
        """Load the state of the last checkpoint; None at the start."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as directory:
            return load(Path(directory))

    def report(self, metrics: Value, save: Callable[[Path], None]) -> None:
        """Tell Ray Train of an epoch, on rank 0 with the checkpoint that `save` writes into a directory."""
        if self.number != 0:
            ray.train.report(metrics.model_dump())
            return
        with tempfile.TemporaryDirectory(prefix="orchestrator-checkpoint-") as directory:
            save(Path(directory))
            ray.train.report(metrics.model_dump(), checkpoint=Checkpoint.from_directory(directory))

    def node_ids(self) -> list[str]:
        """Gather the node of every rank, so that the record can say where the model was trained."""
        mine = ray.get_runtime_context().get_node_id()
        if self.world_size == 1:
            return [mine]
        nodes: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(nodes, mine)
        return [str(node) for node in nodes]
