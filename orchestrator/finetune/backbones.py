"""The pretrained network without its head, as consecutive stages that can be frozen."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from orchestrator.config import BackboneConfig
from orchestrator.errors import BackboneError
from orchestrator.finetune.families import build_model, cut_into_stages, family_of, forward_on_meta, head_of
from orchestrator.records import BackboneSpec

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Hold a network as consecutive stages: images [n, 3, S, S] in, feature vectors [n, feature_dim] out.

    To bring one's own, name `package.module:function` in the experiment file: `function(**backbone.kwargs)`
    returns a Backbone. Each stage takes the output tensor of the one before it, and all parameters and buffers
    are held by the stages. The module must be importable in every worker. Its weights are a state dict of the
    backbone itself, with names that begin with `stages.`.
    """

    stages: nn.ModuleList

    def __init__(self, stages: Iterable[nn.Module], *, feature_dim: int, name: str) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.feature_dim = feature_dim
        self.name = name

    @property
    def num_stages(self) -> int:
        """Count the stages: the deepest freeze depth."""
        return len(self.stages)

    def forward(self, images: Tensor) -> Tensor:
        """Turn normalised images [n, 3, S, S] into feature vectors [n, feature_dim]."""
        outputs = images
        for stage in self.stages:
            outputs = stage(outputs)
        return outputs


def create_backbone(name: str, kwargs: Mapping[str, object], image_size: int) -> Backbone:
    """Build a backbone in eval mode, randomly initialised from torch's global generator.

    Raises BackboneError for an unknown name, for keyword arguments that do not fit, for an image size that is
    too small, and for a function of one's own that breaks the interface.
    """
    if is_own(name):
        return _call_own(name, kwargs, image_size)
    return cut_backbone(build_model(name, kwargs, image_size), name, image_size)


def cut_backbone(model: nn.Module, name: str, image_size: int) -> Backbone:
    """Make a backbone of a whole torchvision model; they share their tensors.

    Raises BackboneError when images of this size vanish on the way.
    """
    _, head = head_of(model)
    backbone = Backbone(cut_into_stages(model, name), feature_dim=head.in_features, name=name).eval()
    try:
        forward_on_meta(backbone, torch.empty(1, 3, image_size, image_size, device="meta"))
    except RuntimeError as error:
        raise BackboneError(
            f"image_size must be large enough for {name}", value=image_size, remedy=f"Raise image_size: {error}."
        ) from error
    return backbone


def is_own(name: str) -> bool:
    """Tell whether a name is that of a function of the user's, `package.module:function`."""
    return ":" in name


def resolve_spec(config: BackboneConfig) -> BackboneSpec:
    """Fill in what the experiment file leaves open: mean and std of the torchvision weights, without a download.

    Those of the weights that are named, else of any entry, else ImageNet's. Raises BackboneError for an unknown
    name.
    """
    mean, std = _normalisation(config)
    return BackboneSpec(
        name=config.name,
        kwargs=dict(config.kwargs),
        image_size=config.image_size,
        resize=config.resize,
        mean=config.mean or mean,
        std=config.std or std,
    )


def _normalisation(
    config: BackboneConfig,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    if is_own(config.name):
        return _IMAGENET_MEAN, _IMAGENET_STD
    family_of(config.name)
    entries = get_model_weights(config.name).__members__
    transforms: Any = entries.get(config.weights, entries["DEFAULT"]).transforms()
    return _triple(transforms.mean), _triple(transforms.std)


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _call_own(name: str, kwargs: Mapping[str, object], image_size: int) -> Backbone:
    function = _import_function(name)
    try:
        backbone = function(**kwargs)
    except TypeError as error:
        raise BackboneError(
            f"backbone.kwargs must be arguments of {name}", value=dict(kwargs), remedy=f"It says: {error}."
        ) from error
    if not isinstance(backbone, Backbone):
        raise BackboneError(
            f"{name} must return a Backbone",
            value=type(backbone).__name__,
            remedy="Return orchestrator.finetune.backbones.Backbone(stages, feature_dim=..., name=...).",
        )
    _require_interface(backbone.eval(), name, image_size)
    return backbone


def _import_function(name: str) -> Any:
    module_name, _, function_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BackboneError(
            "backbone.name must be an importable package.module:function",
            value=name,
            remedy=f"Install the package in every worker: {error}.",
        ) from error


def _require_interface(backbone: Backbone, name: str, image_size: int) -> None:
    with torch.no_grad():
        shape = tuple(backbone(torch.zeros(2, 3, image_size, image_size)).shape)
    if shape != (2, backbone.feature_dim):
        raise BackboneError(
            f"{name} must turn [2, 3, {image_size}, {image_size}] into [2, {backbone.feature_dim}]",
            value=list(shape),
            remedy="End the last stage with pooling and flattening, or correct feature_dim.",
        )
    outside = [key for key in backbone.state_dict() if not key.startswith("stages.")]
    if outside or backbone.num_stages == 0:
        raise BackboneError(
            f"{name} must hold all its tensors in one or more stages",
            value=", ".join(outside) or "no stages",
            remedy="Move them into a stage.",
        )
