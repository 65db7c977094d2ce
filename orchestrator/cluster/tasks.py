"""Makes tasks of one process that hold what a plan gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray

_ARGUMENTS = {"CPU", "GPU", "memory"}


def as_task(work: Callable[..., Any], resources: Mapping[str, float], *, max_retries: int = 2) -> Any:
    """Make a remote task of a function, in Ray's words for `resources`: one CPU where they name none.

    A process that has used a GPU keeps its memory: it ends with its task.
    """
    num_gpus = resources.get("GPU", 0.0)
    decorate = ray.remote(
        num_cpus=resources.get("CPU", 1.0),
        num_gpus=num_gpus,
        resources={name: amount for name, amount in resources.items() if name not in _ARGUMENTS},
        memory=resources.get("memory", 0.0),
        max_calls=1 if num_gpus else 0,
        max_retries=max_retries,
    )
    return decorate(work)
