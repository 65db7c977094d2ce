"""The state of a training by Reptile after an outer step, and its file: enough to go on as if nothing had happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from orchestrator.config import ReptileConfig
from orchestrator.finetune.checkpoints import read_content, write_content
from orchestrator.records import ReptilePoint

_FILE = "reptile.pt"


@dataclass(frozen=True, kw_only=True)
class ReptileState:
    """Hold a training after `step` outer steps: the backbone.

    `seconds` is the time spent so far. There is nothing else to keep: every task has a new head and a new optimizer,
    and is drawn from the seed and the step.
    """

    step: int
    config: ReptileConfig
    backbone: dict[str, Tensor]
    history: tuple[ReptilePoint, ...]
    seconds: float


def save_reptile(state: ReptileState, directory: Path) -> None:
    """Write a state into a directory, whole or not at all."""
    content = {
        "step": state.step,
        "config": state.config.model_dump(),
        "backbone": state.backbone,
        "history": [point.model_dump() for point in state.history],
        "seconds": state.seconds,
    }
    write_content(content, directory / _FILE)


def load_reptile(directory: Path) -> ReptileState:
    """Read a state, to the CPU, without running any code from it. Raises StorageError or TrainingError when damaged."""

    def read(content: dict[str, Any]) -> ReptileState:
        return ReptileState(
            step=content["step"],
            config=ReptileConfig.model_validate(content["config"]),
            backbone=content["backbone"],
            history=tuple(ReptilePoint.model_validate(point) for point in content["history"]),
            seconds=content["seconds"],
        )

    return read_content(directory / _FILE, read, what="a training by Reptile")
