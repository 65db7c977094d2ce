"""The record of an initialisation that was learnt by Reptile."""

from __future__ import annotations

from typing import Literal

from orchestrator.config import ReptileConfig
from orchestrator.records.base import Value


class ReptilePoint(Value):
    """Measure a training by Reptile after `step` outer steps; 0 is before the first.

    `first_loss` and `last_loss` are the mean cross-entropies (nats) of the first and of the last batch of a task, over
    the tasks since the point before; None at step 0. `accuracy` is the mean over tasks of validation images after the
    inner steps, `standard_error` that of the mean over tasks, None for a single one; both are None where none was
    tested.
    """

    step: int
    first_loss: float | None = None
    last_loss: float | None = None
    accuracy: float | None = None
    standard_error: float | None = None


class ReptilePhase(Value):
    """Say how an initialisation was learnt over the tasks of `num_subsets` subsets.

    The first point of `history` is before training, the last at its end; both were tested on the same tasks.
    """

    objective: Literal["reptile"] = "reptile"
    num_images: int
    num_subsets: int
    settings: ReptileConfig
    history: list[ReptilePoint]
    seconds: float
    num_workers: int
    worker_resources: dict[str, float] = {}
