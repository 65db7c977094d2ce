"""The state of SimSiam's training after an epoch, and its file: enough to go on as if nothing had happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from orchestrator.config import SimSiamConfig
from orchestrator.finetune.checkpoints import read_content, write_content
from orchestrator.records import SimSiamEpoch

_FILE = "simsiam.pt"


@dataclass(frozen=True, kw_only=True)
class SimSiamState:
    """Hold a training after `epoch`: the whole model, and what the optimizer and the scaler of gradients hold.

    `seconds` is the time spent so far. Generators have no state: order and views depend on the seed and the epoch.
    """

    epoch: int
    config: SimSiamConfig
    model: dict[str, Tensor]
    steps: dict[str, Any]
    history: tuple[SimSiamEpoch, ...]
    seconds: float


def save_simsiam(state: SimSiamState, directory: Path) -> None:
    """Write a state into a directory, whole or not at all."""
    content = {
        "epoch": state.epoch,
        "config": state.config.model_dump(),
        "model": state.model,
        "steps": state.steps,
        "history": [metrics.model_dump() for metrics in state.history],
        "seconds": state.seconds,
    }
    write_content(content, directory / _FILE)


def load_simsiam(directory: Path) -> SimSiamState:
    """Read a state, to the CPU, without running any code from it. Raises StorageError or TrainingError when damaged."""

    def read(content: dict[str, Any]) -> SimSiamState:
        return SimSiamState(
            epoch=content["epoch"],
            config=SimSiamConfig.model_validate(content["config"]),
            model=content["model"],
            steps=content["steps"],
            history=tuple(SimSiamEpoch.model_validate(metrics) for metrics in content["history"]),
            seconds=content["seconds"],
        )

    return read_content(directory / _FILE, read, what="a SimSiam training")
