"""Freezes stages of a classifier's backbone, for all of a training or for a phase of it, and BatchNorm statistics."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.config import BatchNormMode
from orchestrator.errors import BackboneError
from orchestrator.finetune.classifier import Classifier


class Suffix(nn.Sequential):
    """Hold the stages that are not frozen for all of a training, and the head behind them.

    `depth` is the number of stages before it, `num_classes` that of the classes which the head tells apart, of all
    tasks. Where `dropout` is above 0 the head's input goes through it. Where it `weighs_tasks`, it holds a log-variance
    for each task, float32 [T] and 0 at first, which is trained with the rest and is no part of the classifier.
    """

    def __init__(self, classifier: Classifier, depth: int, *, dropout: float = 0.0, weighs_tasks: bool = False) -> None:
        free = classifier.backbone.stages[depth:]
        super().__init__(*free, *([nn.Dropout(dropout)] if dropout > 0 else []), classifier.head)
        self.depth = depth
        self.num_free = len(free)
        self.num_classes = classifier.head.out_features
        self.class_counts = classifier.class_counts
        device = classifier.head.weight.device
        self.log_variances = nn.Parameter(torch.zeros(len(self.class_counts), device=device)) if weighs_tasks else None
        self._mode: tuple[int, BatchNormMode] | None = None

    @property
    def stages(self) -> list[nn.Module]:
        """List the stages, the first of them number `depth` of the backbone, from 0."""
        return list(self)[: self.num_free]

    def features(self, inputs: Tensor) -> Tensor:
        """Give what the head is applied to, dropout aside."""
        for stage in self.stages:
            inputs = stage(inputs)
        return inputs

    @property
    def head(self) -> nn.Module:
        """Give the head."""
        return self[-1]

    @property
    def head_prefix(self) -> str:
        """Give what the names of the head's parameters begin with."""
        return f"{len(self) - 1}."

    def is_log_variance(self, name: str) -> bool:
        """Tell whether a parameter of this name weighs tasks: nothing holds it near anything."""
        return name == "log_variances"

    def free(self, depth: int, *, head: bool = True) -> None:
        """Let the stages from `depth` of the backbone on be trained, and the head where it is to be; hold the rest.

        What weighs tasks goes with the head.
        """
        for number, stage in enumerate(self.stages, start=self.depth):
            stage.requires_grad_(number >= depth)
        self.head.requires_grad_(head)
        if self.log_variances is not None:
            # They follow the losses that the heads make of the features.
            self.log_variances.requires_grad_(head)

    def set_mode(self, depth: int, batch_norm: BatchNormMode) -> None:
        """Put what is trained into training mode, stages below `depth` of the backbone into eval mode.

        `frozen` leaves all BatchNorm layers on their running statistics.
        """
        # Going through all layers at every step took 2% of a small network's training.
        if self._mode == (depth, batch_norm):
            return
        self.train()
        for stage in self.stages[: depth - self.depth]:
            stage.eval()
        if batch_norm == "frozen":
            for layer in batch_norm_layers(self):
                layer.eval()
        self._mode = (depth, batch_norm)

    def train(self, mode: bool = True) -> Self:
        """Put all of it into training or evaluation mode."""
        self._mode = None
        return super().train(mode)


def freeze(
    classifier: Classifier, depth: int, *, dropout: float = 0.0, weighs_tasks: bool = False
) -> tuple[nn.Sequential, Suffix]:
    """Freeze the first `depth` stages and give the prefix, in eval mode, and the suffix, all of it trainable.

    Depth 0 freezes nothing, the number of stages everything but the head. Raises BackboneError beyond that.
    """
    backbone = classifier.backbone
    if not 0 <= depth <= backbone.num_stages:
        raise BackboneError(
            f"freeze_depth must be at most {backbone.num_stages} for {backbone.name}",
            value=depth,
            remedy="Lower freeze_depth.",
        )
    prefix = classifier.prefix(depth)
    suffix = Suffix(classifier, depth, dropout=dropout, weighs_tasks=weighs_tasks)
    # Eval mode keeps dropout still and BatchNorm statistics as they are; without gradients nothing else can move.
    prefix.eval().requires_grad_(False)
    suffix.requires_grad_(True)
    return prefix, suffix


def batch_norm_layers(module: nn.Module) -> list[_BatchNorm]:
    """List the BatchNorm layers of any dimension in a module."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
