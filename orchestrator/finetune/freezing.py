"""Freezes the first stages of a classifier's backbone, and the statistics of BatchNorm layers."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.errors import BackboneError
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.contracts import BatchNormMode


def freeze(classifier: Classifier, depth: int) -> tuple[nn.Sequential, nn.Sequential]:
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
    prefix, suffix = classifier.prefix(depth), classifier.suffix(depth)
    # Eval mode keeps dropout still and BatchNorm statistics as they are; without gradients nothing else can move.
    prefix.eval().requires_grad_(False)
    suffix.requires_grad_(True)
    return prefix, suffix


def set_training_mode(suffix: nn.Module, batch_norm: BatchNormMode) -> None:
    """Put the suffix into training mode; `frozen` leaves BatchNorm layers on their running statistics."""
    suffix.train()
    if batch_norm == "frozen":
        for layer in batch_norm_layers(suffix):
            layer.eval()


def batch_norm_layers(module: nn.Module) -> list[_BatchNorm]:
    """List the BatchNorm layers of any dimension in a module."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
