"""Measures how far weights are from where they started, or from zero: the term R(theta, theta_s) of a loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from orchestrator.config import PLAIN_REGULARIZERS, RegularizerName
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.freezing import Suffix
from orchestrator.records import Hyperparameters


def penalty(name: RegularizerName, parameters: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """Give R(theta, theta_s) [] of parameters and their values at the start, in their dtype and without its factor.

    A layer is one tensor theta, theta_s its start under the same name and of the same shape (`l1` and `l2` need none).

    Over all layers, biases and the scales and shifts of normalisation included:

    - `l2_sp`: the sum of |theta - theta_s|^2 / 2 (Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer
      Learning with Convolutional Networks", 2018);
    - `l2`: the sum of |theta|^2 / 2 (Krogh and Hertz, "A Simple Weight Decay Can Improve Generalization", 1991);
    - `l1`: the sum of |theta|_1 (Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996); at zero its
      gradient is zero;
    - `euclidean`: the mean over layers of |theta - theta_s|, the distance that Gouk, Hospedales and Pontil bound for
      each layer ("Distance-Based Regularisation of Deep Networks for Fine-Tuning", 2021), here as a penalty; at zero
      difference its gradient is zero.

    Over layers of two or more dimensions alone, zero where there are none:

    - `cosine`: the mean over layers of 1 - cos(theta, theta_s), each layer taken as one vector; one that is all zero
      has no direction and counts zero, with zero gradient. No paper is followed: the length of a layer is left free;
    - `orthogonal`: the mean over layers of |theta^T theta_s|_F^2, each flattened to a matrix [out, rest] whose rows
      are the outputs; the product is [rest, rest]. It is the soft orthogonality of Bousmalis et al. ("Domain Separation
      Networks", 2016), there of features.

    It depends on no sample, so that every rank adds the same to its loss, and averaging over ranks keeps it. Call it
    outside autocast, which would round the products of matrices.
    """
    names = list(parameters)
    if name in ("cosine", "orthogonal"):
        names = [key for key in names if parameters[key].dim() >= 2]
    if name == "none" or not names:
        return torch.zeros(())
    weights = [parameters[key] for key in names]
    match name:
        case "l1":
            return torch.stack(torch._foreach_norm(weights, 1)).sum()
        case "l2":
            return _half_square(weights)
    starts = [start[key] for key in names]
    match name:
        case "l2_sp":
            return _half_square(torch._foreach_sub(weights, starts))
        case "euclidean":
            return torch.stack(torch._foreach_norm(torch._foreach_sub(weights, starts))).mean()
        case "cosine":
            return _cosine_distance(weights, starts)
        case "orthogonal":
            return torch.stack([_overlap(*pair) for pair in zip(weights, starts, strict=True)]).mean()


def pulls_to_start(hyperparameters: Hyperparameters) -> bool:
    """Tell whether the regulariser needs the weights that the training starts from."""
    return hyperparameters.regularizer not in PLAIN_REGULARIZERS


def start_of(suffix: Suffix, source: Backbone | None, device: str) -> dict[str, Tensor]:
    """Give theta_s for the parameters of a suffix, by their names there, on a device.

    The stages' are those of `source`, shared by all trainings of this process: the tensors that it has, or where it
    does not lie on the device one copy of them. Without one, and for the head, they are copies of what the suffix holds
    now.
    """
    if source is None:
        return {name: parameter.detach().clone() for name, parameter in suffix.named_parameters()}
    stages = {
        f"{place}.{name}": tensor
        for place, tensors in enumerate(_stages_on(source, device)[suffix.depth :])
        for name, tensor in tensors.items()
    }
    head = {
        name: parameter.detach().clone()
        for name, parameter in suffix.named_parameters()
        if name.startswith(suffix.head_prefix)
    }
    return stages | head


@lru_cache(maxsize=1)
def _stages_on(source: Backbone, device: str) -> list[dict[str, Tensor]]:
    """Give the parameters of each stage on a device, copied there once for each process."""
    return [{name: found.detach().to(device) for name, found in stage.named_parameters()} for stage in source.stages]


def sparsity(parameters: Mapping[str, Tensor], threshold: float = 0.0) -> float:
    """Give the share of all weights, in [0, 1], whose absolute value is at most `threshold`; 0 without weights."""
    total = sum(tensor.numel() for tensor in parameters.values())
    if total == 0:
        return 0.0
    counts = [(tensor.detach().abs() <= threshold).sum() for tensor in parameters.values()]
    return int(torch.stack(counts).sum()) / total


def _half_square(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).square().sum() / 2


def _cosine_distance(weights: list[Tensor], starts: list[Tensor]) -> Tensor:
    products = torch.stack([(weight * first).sum() for weight, first in zip(weights, starts, strict=True)])
    lengths = torch.stack(torch._foreach_norm(weights)) * torch.stack(torch._foreach_norm(starts))
    has_direction = lengths > 0
    # Both branches of `where` are differentiated: neither may divide by zero.
    cosines = products / torch.where(has_direction, lengths, 1.0)
    return torch.where(has_direction, 1 - cosines, 0.0).mean()


def _overlap(weight: Tensor, start: Tensor) -> Tensor:
    """Give |W^T S|_F^2 by the smaller of two products: it equals the sum over the entries of (W W^T) * (S S^T)."""
    weight, start = weight.flatten(1), start.flatten(1)
    rows, columns = weight.shape
    if rows < columns:
        return ((weight @ weight.T) * (start @ start.T)).sum()
    return (weight.T @ start).square().sum()
