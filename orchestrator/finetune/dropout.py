"""Sets how often the residual blocks of a backbone are skipped in training."""

from __future__ import annotations

from torch import nn
from torchvision.ops import StochasticDepth


def set_stochastic_depth(backbone: nn.Module, rate: float) -> int:
    """Give the StochasticDepth modules of a backbone rates that rise linearly from 0 to `rate`, and count them.

    In the order of `modules()` the first is never skipped and the last, the deepest, with probability `rate` in
    [0, 1); a single one gets `rate` (Huang et al., 2016, from 0 as in torchvision's ConvNeXt and Swin). Earlier rates
    count for nothing: a backbone can be set again and again. Blocks are skipped in training mode alone, those of
    frozen stages in eval mode never. Returns 0 where the family has none.
    """
    layers = [module for module in backbone.modules() if isinstance(module, StochasticDepth)]
    last = len(layers) - 1
    for place, layer in enumerate(layers):
        layer.p = rate * place / last if last else rate
    return len(layers)
