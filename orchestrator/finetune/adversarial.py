"""Makes images that are harder to classify, by one step of the fast gradient sign method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def adversarial_images(
    model: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    *,
    epsilon: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Move every value of normalised images [n, C, H, W] by epsilon along the sign of the loss's gradient.

    `epsilon` is in units of pixels that range over [0, 1]; `mean` and `std` [C] are those the images were normalised
    by. What comes back is normalised, clipped to what such pixels can be, and detached (Goodfellow, Shlens and
    Szegedy, 2015). Values whose gradient is zero stay as they are.

    `model` gives logits for images, its gradients reaching back to them, and `loss` a value [] for logits and targets,
    whose scale does not matter. Gradients of parameters are left untouched, those already there too. Give the model
    without its DDP wrapper, which does not support torch.autograd.grad, and with BatchNorm statistics held fixed: in
    training mode they would count these images once more.
    """
    # A view that is its own leaf: the gradient needs no copy, and the caller's tensor stays as it was.
    inputs = images.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(model(inputs), targets), inputs)
    middle, scale = (inputs.new_tensor(values).reshape(-1, 1, 1) for values in (mean, std))
    moved = inputs.detach() + gradient.sign() * (epsilon / scale)
    return torch.clamp(moved, min=-middle / scale, max=(1 - middle) / scale)
