"""Shows where in an image a classifier found a class: Grad-CAM, and attention roll-out for ViTs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vision_transformer import EncoderBlock
from torchvision.ops import Permute

from orchestrator.errors import BackboneError
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import Classifier, preprocess
from orchestrator.finetune.families import ClassToken
from orchestrator.records import BackboneSpec, ExplanationMethod

# Attention takes memory by the square of the number of patches.
_BATCH = 8
# Small images leave one or two places of the last stage: what spoke for a class cannot be told apart there.
_ENOUGH_PLACES = 4
_TO_CHANNELS_LAST = [0, 2, 3, 1]


def explanation_method(backbone: Backbone) -> ExplanationMethod:
    """Tell how a backbone is explained: by its attention where it ends in a class token, else by Grad-CAM."""
    has_class_token = any(isinstance(piece, ClassToken) for piece in _pieces(backbone.stages))
    return "attention_rollout" if has_class_token else "grad_cam"


def heat_maps(
    classifier: Classifier,
    spec: BackboneSpec,
    pixels: NDArray[np.uint8],
    classes: NDArray[np.int64],
    *,
    batch_size: int = _BATCH,
) -> NDArray[np.float32]:
    """Show where pixels [n, S, S, 3] hold what speaks for the classes [n]: float32 [n, S, S] in [0, 1].

    Grad-CAM (Selvaraju et al., 2017) of the class's logit on the last map of at least 4 x 4 places, or on the last
    of the largest where none has as many; for a ViT attention roll-out (Abnar and Zuidema, 2020), which is the same
    for every class. Maps are enlarged bilinearly; the highest value of each is 1, or all are 0 where nothing speaks
    for the class. Works on the classifier's device, in eval mode, and leaves the classifier as it was. Raises
    BackboneError when no piece of the backbone gives a map.
    """
    explain = _rollout_maps if explanation_method(classifier.backbone) == "attention_rollout" else _grad_cam_maps
    device = str(classifier.head.weight.device)
    found = [np.zeros((0, spec.image_size, spec.image_size), dtype=np.float32)]
    with _evaluating(classifier):
        for start in range(0, len(pixels), batch_size):
            images = preprocess(pixels[start : start + batch_size], spec, device)
            wanted = torch.from_numpy(classes[start : start + batch_size]).to(device)
            found.append(_enlarge(explain(classifier, images, wanted), spec.image_size).cpu().numpy())
    return np.concatenate(found)


def roll_out(attentions: Iterable[Tensor]) -> Tensor:
    """Multiply the attention [n, L, L] of consecutive layers, half of each the identity for the residual path.

    Row i of the result [n, L, L] says how much of each token of the input went into token i, and sums to 1 as the
    rows of the layers do (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020, equation 1).
    """
    rolled: Tensor | None = None
    for attention in attentions:
        identity = torch.eye(attention.shape[-1], device=attention.device)
        mixed = 0.5 * attention + 0.5 * identity
        rolled = mixed if rolled is None else mixed @ rolled
    if rolled is None:
        raise BackboneError("attention roll-out needs at least one layer of attention")
    return rolled


def _rollout_maps(classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Give what the class token took from each patch [n, h, w]."""
    with torch.no_grad():
        to_patches = roll_out(_attentions(_pieces(classifier.backbone.stages), images))[:, 0, 1:]
    side = round(to_patches.shape[1] ** 0.5)
    return to_patches.reshape(-1, side, side)


def _attentions(pieces: Iterable[nn.Module], images: Tensor) -> Iterator[Tensor]:
    """Give the attention [n, L, L] of every layer, averaged over its heads."""
    outputs = images
    for piece in pieces:
        if isinstance(piece, EncoderBlock):
            # The block itself does not ask for the weights, which would cost every training step.
            inputs = piece.ln_1(outputs)
            yield piece.self_attention(inputs, inputs, inputs, need_weights=True)[1]
        outputs = piece(outputs)


def _grad_cam_maps(classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Give Grad-CAM [n, h, w]: the channels weighted by their mean gradient, and what is negative left out."""
    pieces = list(_pieces(classifier.backbone.stages))
    cut, is_channels_last = _last_map(pieces, images[:1], classifier.backbone.name)
    with torch.no_grad():
        outputs = _run(pieces[:cut], images)
    with torch.enable_grad():
        # Frozen parameters need no gradients for this, and no others get any: only the map asks for its own.
        activations = outputs.detach().requires_grad_()
        # A copy, because the next piece may work in place.
        logits = classifier.head(_run(pieces[cut:], activations.clone()))
        (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), activations)
    channel, places = (3, (1, 2)) if is_channels_last else (1, (2, 3))
    return (gradients.mean(dim=places, keepdim=True) * activations.detach()).sum(dim=channel).relu()


def _last_map(pieces: Sequence[nn.Module], images: Tensor, name: str) -> tuple[int, bool]:
    """Find the map to explain: the number of pieces that lead to it, and whether its channels come last."""
    found: list[tuple[int, int, bool]] = []
    outputs, is_channels_last = images, False
    with torch.no_grad():
        for number, piece in enumerate(pieces, start=1):
            outputs = piece(outputs)
            if isinstance(piece, Permute):
                is_channels_last = list(piece.dims) == _TO_CHANNELS_LAST
            if outputs.dim() == 4:
                height, width = outputs.shape[1:3] if is_channels_last else outputs.shape[2:]
                found.append((min(height, width, _ENOUGH_PLACES), number, is_channels_last))
    if not found:
        raise BackboneError(
            "the stages of a backbone must give a map [n, c, h, w] to be explained",
            value=name,
            remedy="Make its stages nn.Sequential with pooling as a part, or set evaluate.explanations: 0.",
        )
    _, cut, is_channels_last = max(found)
    return cut, is_channels_last


def _pieces(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Take sequences apart into modules that run one after the other."""
    for module in modules:
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            yield from _pieces(module)
        else:
            yield module


def _run(pieces: Iterable[nn.Module], inputs: Tensor) -> Tensor:
    outputs = inputs
    for piece in pieces:
        outputs = piece(outputs)
    return outputs


def _enlarge(maps: Tensor, size: int) -> Tensor:
    """Enlarge maps [n, h, w] to [n, size, size] and scale each to a highest value of 1."""
    large = functional.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    highest = large.amax(dim=(1, 2), keepdim=True)
    return torch.where(highest > 0, large / highest, torch.zeros_like(large))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and every part back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
