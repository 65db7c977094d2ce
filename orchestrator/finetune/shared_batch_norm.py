"""BatchNorm whose statistics are those of the global batch, whatever part of it a rank has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.finetune.distributed import sum_over_ranks


class SharedBatchNorm(_BatchNorm):
    """Normalise by the mean and variance of all ranks' samples; in eval mode by the running ones.

    What torch.nn.SyncBatchNorm does on GPUs, here over any backend of torch.distributed: of the same global batches two
    ranks make what one process makes, but for the rounding of sums. Every rank must have a sample.
    """

    @classmethod
    def of(cls, layer: _BatchNorm) -> SharedBatchNorm:
        """Make the layer that has another's parameters, statistics and mode."""
        shared = cls(
            layer.num_features,
            eps=layer.eps,
            momentum=layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
        )
        shared._parameters, shared._buffers = layer._parameters, layer._buffers
        return shared.train(layer.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise inputs [n, C, ...] over all dimensions but the second."""
        if not self.training:
            outputs: Tensor = super().forward(inputs)
            return outputs
        exact, others = inputs.float(), [dim for dim in range(inputs.dim()) if dim != 1]
        shape = [-1 if dim == 1 else 1 for dim in range(inputs.dim())]
        count = sum_over_ranks(torch.tensor(float(exact.numel() // exact.shape[1]), device=exact.device))
        mean = _sum_of_ranks(exact.sum(others)) / count
        centred = exact - mean.view(shape)
        variance = _sum_of_ranks((centred**2).sum(others)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(inputs.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, inputs: Tensor) -> None:
        pass


def share_batch_norms(module: nn.Module) -> None:
    """Replace every BatchNorm layer inside a module; parameters, buffers and their names stay."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, SharedBatchNorm.of(child))
        else:
            share_batch_norms(child)


class _SumOfRanks(torch.autograd.Function):
    """Add up a tensor over the ranks; what each rank's loss owes to the sum goes back to all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Give the sum on every rank."""
        return sum_over_ranks(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Give the sum of the gradients on every rank."""
        return sum_over_ranks(gradients[0].clone())


def _sum_of_ranks(values: Tensor) -> Tensor:
    summed: Tensor = _SumOfRanks.apply(values)
    return summed
