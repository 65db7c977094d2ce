"""The state of SimSiam's training after an epoch, and its file: enough to go on as if nothing had happened."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator import storage
from orchestrator.config import SimSiamConfig
from orchestrator.errors import TrainingError
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
    buffer = io.BytesIO()
    torch.save(content, buffer)
    storage.write_bytes(str(directory / _FILE), buffer.getvalue())


def load_simsiam(directory: Path) -> SimSiamState:
    """Read a state, to the CPU, without running any code from it. Raises StorageError or TrainingError when damaged."""
    path = str(directory / _FILE)
    try:
        content = torch.load(io.BytesIO(storage.read_bytes(path)), map_location="cpu", weights_only=True)
        return SimSiamState(
            epoch=content["epoch"],
            config=SimSiamConfig.model_validate(content["config"]),
            model=content["model"],
            steps=content["steps"],
            history=tuple(SimSiamEpoch.model_validate(metrics) for metrics in content["history"]),
            seconds=content["seconds"],
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(
            "a checkpoint must hold the state of a SimSiam training",
            value=path,
            remedy="It is damaged or of another kind: remove it to train from the start.",
        ) from error
