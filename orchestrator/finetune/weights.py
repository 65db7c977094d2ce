"""Loads the pretrained weights of a backbone, and digests what was loaded."""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.error import URLError

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from orchestrator import storage
from orchestrator.errors import WeightsError
from orchestrator.experiment_file import is_weights_path
from orchestrator.finetune.backbones import Backbone, create_backbone, cut_backbone, is_own
from orchestrator.finetune.families import build_model, family_of, head_of
from orchestrator.finetune.randomness import seeded
from orchestrator.records import BackboneSpec

State = dict[str, Tensor]

_OWN_PREFIX = "stages."
_POSITIONS = "pos_embedding"
_SHOWN = 3


def load_pretrained(weights: str, spec: BackboneSpec, *, seed: int) -> tuple[Backbone, str]:
    """Give a backbone with pretrained weights, in eval mode, and the digest of its weights.

    `weights` is a path or URI of a state dict (`.safetensors`, or a torch file that is loaded without running any
    code from it), a torchvision weights name such as DEFAULT, or `none` for a random initialisation from the
    seed. A state dict has torchvision's names, its head being ignored, or those that `save_backbone` writes; all
    else must match exactly. A ViT's position embedding is interpolated to the image size.

    Raises WeightsError when the weights are missing, damaged or do not fit, BackboneError for the spec.
    """
    state = None if weights == "none" else _read(weights, spec.name)
    with seeded(seed):
        backbone = _build(state, spec, weights)
    return backbone.eval(), weights_digest(backbone)


def weights_digest(backbone: Backbone) -> str:
    """Digest the names, types, shapes and bytes of all parameters and buffers: 16 hexadecimal characters."""
    return storage.digest_bytes(_chunks(backbone.state_dict()))


def parse_safetensors(content: bytes, uri: str) -> State:
    """Read tensors. Raises WeightsError when the content is damaged."""
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError) as error:
        raise WeightsError(
            "a weights file must be whole safetensors", value=uri, remedy=f"Copy it again: {error}."
        ) from error


def load_exactly(module: nn.Module, state: State, *, source: str, remedy: str, without: str | None = None) -> None:
    """Load a state dict whose names and shapes must match the module's, but for those that begin with `without`.

    Raises WeightsError naming the first tensors that are missing, unexpected or of another shape.
    """
    targets = {name: tensor for name, tensor in module.state_dict().items() if not _is_in(name, without)}
    offered = {name: tensor for name, tensor in state.items() if not _is_in(name, without)}
    misshaped = [
        f"{name} {list(offered[name].shape)} for {list(target.shape)}"
        for name, target in targets.items()
        if name in offered and offered[name].shape != target.shape
    ]
    if misshaped:
        raise _mismatch("have the backbone's shapes", misshaped, source, remedy)
    try:
        # Torch's own loading knows the names that older versions wrote.
        found = module.load_state_dict(offered, strict=False)
    except RuntimeError as error:
        raise _mismatch("fit the backbone", [str(error)], source, remedy) from error
    missing = [name for name in found.missing_keys if not _is_in(name, without)]
    if missing:
        raise _mismatch("hold every tensor of the backbone; missing are", missing, source, remedy)
    if found.unexpected_keys:
        raise _mismatch("hold nothing else than the backbone; unexpected are", found.unexpected_keys, source, remedy)


def _mismatch(rule: str, names: list[str], source: str, remedy: str) -> WeightsError:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return WeightsError(f"weights must {rule}", value=f"{shown}{more} in {source}", remedy=remedy)


def _is_in(name: str, prefix: str | None) -> bool:
    return prefix is not None and name.startswith(f"{prefix}.")


def _build(state: State | None, spec: BackboneSpec, source: str) -> Backbone:
    remedy = "Check backbone.name, backbone.kwargs and the file: they must be of one model."
    if state is None:
        return create_backbone(spec.name, spec.kwargs, spec.image_size)
    if is_own(spec.name) or all(name.startswith(_OWN_PREFIX) for name in state):
        backbone = create_backbone(spec.name, spec.kwargs, spec.image_size)
        fitted = state if is_own(spec.name) else _fit_positions(state, backbone)
        load_exactly(backbone, fitted, source=source, remedy=remedy)
        return backbone
    model = build_model(spec.name, spec.kwargs, spec.image_size)
    head, _ = head_of(model)
    load_exactly(model, _fit_positions(state, model), source=source, remedy=remedy, without=head)
    return cut_backbone(model, spec.name, spec.image_size)


def _fit_positions(state: State, module: nn.Module) -> State:
    """Interpolate the position embedding [1, 1 + p, d] of torchvision's ViT to the patches of the module."""
    targets = {name: tensor for name, tensor in module.state_dict().items() if name.endswith(_POSITIONS)}
    return state | {
        name: _interpolate(state[name], num_positions=target.shape[1])
        for name, target in targets.items()
        if name in state and state[name].dim() == 3 and state[name].shape != target.shape
    }


def _interpolate(embedding: Tensor, *, num_positions: int) -> Tensor:
    side = math.isqrt(num_positions - 1)
    try:
        resized = interpolate_embeddings(side, 1, OrderedDict({"encoder.pos_embedding": embedding}))
    except ValueError as error:
        raise WeightsError(
            "a position embedding must be that of a square of patches",
            value=list(embedding.shape),
            remedy="Use weights of torchvision's ViT.",
        ) from error
    fitted: Tensor = resized["encoder.pos_embedding"]
    return fitted


def _read(weights: str, name: str) -> State:
    return _read_file(weights) if is_weights_path(weights) else _download(weights, name)


def _read_file(uri: str) -> State:
    content = storage.read_bytes(uri)
    return parse_safetensors(content, uri) if uri.endswith(".safetensors") else _parse_torch(content, uri)


def _parse_torch(content: bytes, uri: str) -> State:
    try:
        loaded: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            "a weights file must be a whole torch file that holds tensors alone, no code",
            value=uri,
            remedy="Save model.state_dict() again, with torch.save or as safetensors.",
        ) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(entry, Tensor) for entry in loaded.values()):
        keys = ", ".join(map(str, list(loaded)[:_SHOWN])) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise WeightsError(
            "a weights file must be a state dict, names to tensors",
            value=f"{keys} in {uri}",
            remedy="Save the part of it that is the model's state_dict().",
        )
    return dict(loaded)


def _download(weights: str, name: str) -> State:
    entries = {} if is_own(name) else _entries(name)
    if weights not in entries:
        raise WeightsError(
            f"backbone.weights must be a path, a URI, pretrain, none, or weights of {name} in torchvision",
            value=weights,
            remedy=f"torchvision has {', '.join(entries) or 'none'}.",
        )
    try:
        state: State = entries[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"torchvision's weights of {name} must be downloadable or downloaded already",
            value=weights,
            remedy=f"Give backbone.weights the path of a state dict instead: {error}.",
        ) from error
    return dict(state)


def _entries(name: str) -> dict[str, Any]:
    family_of(name)
    return dict(get_model_weights(name).__members__)


def _chunks(state: Mapping[str, Tensor]) -> Iterable[bytes | memoryview]:
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().data
