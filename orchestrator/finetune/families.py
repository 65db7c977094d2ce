"""Builds torchvision's classification models by family and takes them apart into stages."""

from __future__ import annotations

import difflib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models import (
    ConvNeXt,
    EfficientNet,
    MobileNetV2,
    MobileNetV3,
    RegNet,
    ResNet,
    SwinTransformer,
    VisionTransformer,
    get_model_builder,
    list_models,
)

from orchestrator.errors import BackboneError

# Cuts must not depend on the working size: at 32 px the last stages of most models are one pixel wide.
_REFERENCE_SIZE = 224
_GROUPS_OF_BLOCKS = 4

Pieces = dict[str, nn.Module]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Say how the models of one torchvision module are taken apart.

    `pieces` gives the smallest consecutive parts in order, `tail` what leads from the last one to the feature
    vector, without dropout; `starts` the indices of the pieces that begin a stage. `arguments` are keyword
    arguments of the builders beyond those of the model's class.
    """

    model: Callable[..., nn.Module]
    pieces: Callable[[Any], Pieces]
    tail: Callable[[Any], Pieces]
    starts: Callable[[list[nn.Module]], list[int]]
    arguments: frozenset[str] = frozenset()
    sized: bool = False


def list_names() -> list[str]:
    """List the names of the supported models."""
    return [name for name in list_models() if _module_of(name) in FAMILIES]


def family_of(name: str) -> Family:
    """Find the family of a model. Raises BackboneError for a name that no supported family has."""
    module = _module_of(name)
    if module not in FAMILIES:
        raise BackboneError(
            "backbone.name must be a torchvision model of the families resnet, resnext, wide_resnet, mobilenet_v2, "
            "mobilenet_v3, efficientnet, convnext, regnet, vit or swin, or package.module:function",
            value=name,
            remedy=_suggestion(name, list_names()),
        )
    return FAMILIES[module]


def build_model(name: str, kwargs: Mapping[str, object], image_size: int) -> nn.Module:
    """Build a whole torchvision model, its head included, randomly initialised from torch's global generator.

    Raises BackboneError for an unknown name, for keyword arguments that its builder does not take, and for an
    image size that is no multiple of a ViT's patch size.
    """
    family = family_of(name)
    _require_known(kwargs, name, family)
    size = {"image_size": image_size} if family.sized else {}
    try:
        model: nn.Module = get_model_builder(name)(**kwargs, **size)
    except AssertionError as error:
        raise BackboneError(
            f"image_size must be a multiple of the patch size of {name}",
            value=image_size,
            remedy=f"Use a multiple of {name.rpartition('_')[2]}.",
        ) from error
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise BackboneError(
            f"backbone.kwargs must be what {name} can be built with", value=dict(kwargs), remedy=f"It says: {error}."
        ) from error
    return model


def cut_into_stages(model: nn.Module, name: str) -> list[nn.Sequential]:
    """Take a model of `build_model` apart into consecutive stages, which share its tensors.

    Stages begin where the resolution changes; a ViT is cut into four equal groups of blocks. The trailing
    1x1 convolution of the MobileNets and EfficientNets is part of a stage of its own. The last stage ends with
    the feature vector that the head takes; the dropout in front of the head is left out.
    """
    family = family_of(name)
    model.eval()
    pieces = family.pieces(model)
    names = list(pieces)
    bounds = [*family.starts(list(pieces.values())), len(names)]
    stages = [{key: pieces[key] for key in names[start:end]} for start, end in pairwise(bounds)]
    stages[-1] |= family.tail(model)
    return [nn.Sequential(OrderedDict(stage)) for stage in stages]


def head_of(model: nn.Module) -> tuple[str, nn.Linear]:
    """Give the name and the module of a model's classification head: its last linear layer."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1]


def forward_on_meta(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run a module on tensors without content, to learn its output's shape at no cost."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    with torch.no_grad():
        outputs: Tensor = functional_call(module, {key: tensor.to("meta") for key, tensor in tensors}, (inputs,))
    return outputs


class PatchEmbedding(nn.Module):
    """Turn images into a ViT's sequence of patches behind the class token, with positions: [n, 1 + p, d]."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.pos_embedding = model.encoder.pos_embedding
        self.dropout = model.encoder.dropout

    def forward(self, images: Tensor) -> Tensor:
        """Embed images of shape [n, 3, S, S]."""
        patches = self.conv_proj(images).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        embedded: Tensor = self.dropout(tokens + self.pos_embedding)
        return embedded


class ClassToken(nn.Module):
    """Pick a ViT's class token from its sequence."""

    def forward(self, sequence: Tensor) -> Tensor:
        """Turn [n, 1 + p, d] into [n, d]."""
        return sequence[:, 0]


def _module_of(name: str) -> str:
    if name not in list_models():
        return ""
    return str(get_model_builder(name).__module__)


def _require_known(kwargs: Mapping[str, object], name: str, family: Family) -> None:
    # Some builders swallow what they do not know, and `weights` would download.
    parameters = inspect.signature(family.model).parameters.values()
    known = {entry.name for entry in parameters if entry.kind is not inspect.Parameter.VAR_KEYWORD} | family.arguments
    if family.sized:
        known.remove("image_size")
    for key in kwargs:
        if key not in known:
            raise BackboneError(
                f"backbone.kwargs must be arguments of {name}", value=key, remedy=_suggestion(key, sorted(known))
            )


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."


def _starts_by_resolution(pieces: list[nn.Module]) -> list[int]:
    images = torch.empty(1, 3, _REFERENCE_SIZE, _REFERENCE_SIZE, device="meta")
    starts, resolution = [0], None
    for index, piece in enumerate(pieces):
        images = forward_on_meta(piece, images)
        # Dimension 2 is the height of [n, c, h, w] and the width of Swin's [n, h, w, c].
        if resolution is not None and images.shape[2] != resolution:
            starts.append(index)
        resolution = images.shape[2]
    return starts


def _starts_with_last_alone(pieces: list[nn.Module]) -> list[int]:
    return [*_starts_by_resolution(pieces), len(pieces) - 1]


def _starts_of_equal_groups(pieces: list[nn.Module]) -> list[int]:
    num_blocks = len(pieces) - 1  # the first piece is the embedding, which goes with the first group
    return [0, *(1 + group * num_blocks // _GROUPS_OF_BLOCKS for group in range(1, _GROUPS_OF_BLOCKS))]


def _numbered(prefix: str, modules: Iterable[nn.Module]) -> Pieces:
    return {f"{prefix}_{index}": module for index, module in enumerate(modules)}


def _features(model: Any) -> Pieces:
    return _numbered("features", model.features)


def _resnet_pieces(model: ResNet) -> Pieces:
    return {
        name: getattr(model, name)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    }


def _regnet_pieces(model: RegNet) -> Pieces:
    return {"stem": model.stem, **dict(model.trunk_output.named_children())}


def _vit_pieces(model: VisionTransformer) -> Pieces:
    return {"embedding": PatchEmbedding(model), **dict(model.encoder.layers.named_children())}


def _pooled(model: nn.Module) -> Pieces:
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1)}


def _mobilenet_v3_tail(model: MobileNetV3) -> Pieces:
    return {**_pooled(model), "hidden": model.classifier[0], "activation": model.classifier[1]}


def _convnext_tail(model: ConvNeXt) -> Pieces:
    return {"pool": model.avgpool, "norm": model.classifier[0], "flatten": model.classifier[1]}


def _vit_tail(model: VisionTransformer) -> Pieces:
    return {"norm": model.encoder.ln, "class_token": ClassToken(), **_numbered("hidden", model.heads[:-1])}


def _swin_tail(model: SwinTransformer) -> Pieces:
    return {"norm": model.norm, "permute": model.permute, **_pooled(model)}


FAMILIES: Mapping[str, Family] = {
    "torchvision.models.resnet": Family(
        model=ResNet, pieces=_resnet_pieces, tail=_pooled, starts=_starts_by_resolution
    ),
    "torchvision.models.mobilenetv2": Family(
        model=MobileNetV2, pieces=_features, tail=_pooled, starts=_starts_with_last_alone
    ),
    "torchvision.models.mobilenetv3": Family(
        model=MobileNetV3,
        pieces=_features,
        tail=_mobilenet_v3_tail,
        starts=_starts_with_last_alone,
        arguments=frozenset({"width_mult", "reduced_tail", "dilated"}),
    ),
    "torchvision.models.efficientnet": Family(
        model=EfficientNet, pieces=_features, tail=_pooled, starts=_starts_with_last_alone
    ),
    "torchvision.models.convnext": Family(
        model=ConvNeXt, pieces=_features, tail=_convnext_tail, starts=_starts_by_resolution
    ),
    "torchvision.models.regnet": Family(
        model=RegNet, pieces=_regnet_pieces, tail=_pooled, starts=_starts_by_resolution
    ),
    "torchvision.models.vision_transformer": Family(
        model=VisionTransformer, pieces=_vit_pieces, tail=_vit_tail, starts=_starts_of_equal_groups, sized=True
    ),
    "torchvision.models.swin_transformer": Family(
        model=SwinTransformer, pieces=_features, tail=_swin_tail, starts=_starts_by_resolution
    ),
}
