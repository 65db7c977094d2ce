"""The state of a training after an epoch, and its file: enough to go on as if nothing had happened."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from orchestrator import storage
from orchestrator.errors import TrainingError
from orchestrator.records import EpochMetrics, Hyperparameters

_FILE = "state.pt"

State = TypeVar("State")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Hold a training after `epoch`: tensors on the CPU, of the suffix alone, as its state dict names them.

    `averaged` is the suffix with the running mean of the weights where one is kept, `trainable` names the parameters
    that the epoch's phase trained, `steps` is what the optimizer and the scaler of gradients hold. `best_suffix` is
    what was validated in `best_epoch`, `seconds` the time spent so far. Generators have no state: the order of an epoch
    depends on the seed and its number.
    """

    epoch: int
    hyperparameters: Hyperparameters
    suffix: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    trainable: tuple[str, ...]
    steps: dict[str, Any]
    best_epoch: int
    best_suffix: dict[str, Tensor]
    history: tuple[EpochMetrics, ...]
    seconds: float


def save_state(state: TrainingState, directory: Path) -> None:
    """Write a state into a directory, whole or not at all."""
    content = {
        "epoch": state.epoch,
        "hyperparameters": state.hyperparameters.model_dump(),
        "suffix": state.suffix,
        "averaged": state.averaged,
        "trainable": list(state.trainable),
        "steps": state.steps,
        "best_epoch": state.best_epoch,
        "best_suffix": state.best_suffix,
        "history": [metrics.model_dump() for metrics in state.history],
        "seconds": state.seconds,
    }
    write_content(content, directory / _FILE)


def load_state(directory: Path) -> TrainingState:
    """Read a state without running any code from it. Raises StorageError or TrainingError when it is damaged."""

    def read(content: dict[str, Any]) -> TrainingState:
        return TrainingState(
            epoch=content["epoch"],
            hyperparameters=Hyperparameters.model_validate(content["hyperparameters"]),
            suffix=content["suffix"],
            averaged=content["averaged"],
            trainable=tuple(content["trainable"]),
            steps=content["steps"],
            best_epoch=content["best_epoch"],
            best_suffix=content["best_suffix"],
            history=tuple(EpochMetrics.model_validate(metrics) for metrics in content["history"]),
            seconds=content["seconds"],
        )

    return read_content(directory / _FILE, read, what="a training")


def write_content(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values to a file, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    storage.write_bytes(str(path), buffer.getvalue())


def read_content(path: Path, read: Callable[[dict[str, Any]], State], *, what: str) -> State:
    """Give what `read` makes of a file's content, on the CPU, without running any code from it.

    Raises StorageError without the file, and TrainingError when it does not hold the state of `what`.
    """
    try:
        return read(torch.load(io.BytesIO(storage.read_bytes(str(path))), map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(
            f"a checkpoint must hold the state of {what}",
            value=str(path),
            remedy="It is damaged or of another kind: remove it to train from the start.",
        ) from error
