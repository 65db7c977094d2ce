"""Reptile's outer step: weights go toward where the trainings of tasks lead from them.

Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", 2018. No gradient is differentiated. With one
inner step of SGD the outer step is one of training on all tasks together; more of them also make the gradients of
different batches of one task agree (section 5), so that a step on one batch helps another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from orchestrator.finetune.distributed import sum_over_ranks


class Weights:
    """Read and write what Reptile moves in a module as one vector: parameters, and running statistics of BatchNorm.

    Whole numbers, such as how many batches BatchNorm has seen, are not in it: writing sets them back to what they were.
    """

    def __init__(self, module: nn.Module) -> None:
        tensors = list(module.state_dict().values())
        self._moved = [tensor for tensor in tensors if tensor.is_floating_point()]
        self._fixed = [(tensor, tensor.clone()) for tensor in tensors if not tensor.is_floating_point()]

    def read(self) -> Tensor:
        """Copy the weights to a vector [d]."""
        return torch.cat([tensor.reshape(-1) for tensor in self._moved])

    def write(self, vector: Tensor) -> None:
        """Copy a vector [d] to the weights."""
        parts = torch.split(vector, [tensor.numel() for tensor in self._moved])
        for tensor, part in zip(self._moved, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))
        for tensor, value in self._fixed:
            tensor.copy_(value)


def take_outer_step(
    weights: Weights, adaptations: Iterable[Callable[[], None]], *, rate: float, num_tasks: int
) -> None:
    """Move weights by `rate` times the mean over tasks of the way to the weights that a task's training ends with.

    Algorithm 2 of the paper. An adaptation trains the module on one task; all begin with the same weights. Under
    torch.distributed `adaptations` are those of this rank, of which there may be none, `num_tasks` counts those of all
    ranks, and all come to the same weights.
    """
    start = weights.read()
    # With twice the digits the sum is the same in whatever order ranks add it up: small differences would grow, because
    # an inner step of Adam is as long for a gradient that is all rounding as for any other.
    way = torch.zeros_like(start, dtype=torch.float64)
    for adapt in adaptations:
        adapt()
        way += weights.read() - start
        weights.write(start)
    weights.write(start + rate / num_tasks * sum_over_ranks(way))


def outer_rate(first: float, step: int, num_steps: int) -> float:
    """Give the rate of an outer step, the first being 1: it falls linearly from `first` to 0 after the last."""
    return first * (1 - (step - 1) / num_steps)
