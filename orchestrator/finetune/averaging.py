"""Keeps a running mean of the weights that are trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from orchestrator.finetune.freezing import Suffix


class RunningMean:
    """Hold the exponential moving average of a suffix's weights: after each step `decay` of it and the rest of them.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992. Before the first step it is the
    start. Buffers, BatchNorm's statistics among them, are those of the suffix.
    """

    def __init__(self, suffix: Suffix, decay: float) -> None:
        self._suffix = suffix
        self._decay = decay
        self.module = copy.deepcopy(suffix).requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """Take a step's weights in."""
        means: list[Tensor] = [*self.module.parameters()]
        values: list[Tensor] = [*self._suffix.parameters()]
        torch._foreach_lerp_(means, values, 1 - self._decay)

    @torch.no_grad()
    def follow(self) -> None:
        """Take over the buffers, and the weights that are not trained now: those are held as they are."""
        for mean, value in zip(self.module.buffers(), self._suffix.buffers(), strict=True):
            mean.copy_(value)
        for mean, parameter in zip(self.module.parameters(), self._suffix.parameters(), strict=True):
            if not parameter.requires_grad:
                mean.copy_(parameter)

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the averaged weights of a state."""
        self.module.load_state_dict(state)
