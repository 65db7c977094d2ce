"""Distances of two batches of features, as penalties that pull a source and a target together."""

from __future__ import annotations

import torch
from torch import Tensor

from orchestrator.config import DomainPenalty


def domain_penalty(kind: DomainPenalty, source: Tensor, target: Tensor) -> Tensor:
    """Give the penalty [] float32 of features [n, d] and [m, d]; 0 where a side has less than two rows, or for none."""
    if kind == "none" or min(len(source), len(target)) < 2:
        return source.new_zeros((), dtype=torch.float32)
    return (coral if kind == "coral" else squared_mmd)(source.float(), target.float())


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Give |C_s - C_t|_F^2 / (4 d^2) of features [n, d] and [m, d] with at least two rows each.

    C_s and C_t are their covariances, over n - 1 and m - 1 (Sun and Saenko, "Deep CORAL: Correlation Alignment for
    Deep Domain Adaptation", 2016, equation 1).
    """
    difference = _covariance(source) - _covariance(target)
    penalty: Tensor = difference.square().sum() / (4 * source.shape[1] ** 2)
    return penalty


def squared_mmd(source: Tensor, target: Tensor) -> Tensor:
    """Give the biased estimate of the squared maximum mean discrepancy of features [n, d] and [m, d].

    The mean of k over pairs of the source, plus that of the target, minus twice that across (Gretton et al., "A Kernel
    Two-Sample Test", 2012, equation 5), with k(x, y) = exp(-|x - y|^2 / (2 s^2)), and s the median distance of the
    pooled features (section 8), taken as a constant. From 0, for equal samples, to below 2.
    """
    pooled = torch.cat([source, target])
    distances = _squared_distances(pooled)
    pairs = torch.triu_indices(len(pooled), len(pooled), offset=1, device=pooled.device)
    scale = distances.detach()[pairs[0], pairs[1]].median().clamp_min(torch.finfo(pooled.dtype).tiny)
    kernel = torch.exp(-distances / (2 * scale))
    size = len(source)
    penalty: Tensor = kernel[:size, :size].mean() + kernel[size:, size:].mean() - 2 * kernel[:size, size:].mean()
    return penalty


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def _squared_distances(features: Tensor) -> Tensor:
    # By way of products, not of differences: those would take rows x rows x features of memory.
    centred = features - features.mean(dim=0).detach()
    products = centred @ centred.T
    norms = products.diagonal()
    return (norms[:, None] + norms[None, :] - 2 * products).clamp_min(0)
