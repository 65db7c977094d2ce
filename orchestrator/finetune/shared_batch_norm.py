"""BatchNorm whose statistics are those of the global batch, whatever part of it a rank has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.finetune.distributed import sum_over_ranks


class SharedBatchNorm(_BatchNorm):
    """Normalise by the mean and variance of all ranks' samples; in eval mode by the running ones.

    What torch.nn.SyncBatchNorm does on GPUs, here over any backend of torch.distributed, that of GPUs included: of the
    same global batches two ranks make what one process makes, but for the rounding of sums. The first `num_blank`
    inputs of a batch fill in for samples that a rank has not: they are normalised, and count in no statistic. All ranks
    together must have two samples.
    """

    num_blank = 0
    _plain: tuple[_BatchNorm]

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
        # In a tuple, because as an attribute it would be a part of the network.
        shared._plain = (layer,)
        return shared.train(layer.training)

    @property
    def plain(self) -> _BatchNorm:
        """Give the layer that this one was made of: it has the same parameters and statistics."""
        return self._plain[0].train(self.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise inputs [n, C, ...] over all dimensions but the second."""
        if not self.training:
            outputs: Tensor = super().forward(inputs)
            return outputs
        exact, others = inputs.float(), [dim for dim in range(inputs.dim()) if dim != 1]
        shape = [-1 if dim == 1 else 1 for dim in range(inputs.dim())]
        counted = exact[self.num_blank :]
        count = sum_over_ranks(torch.tensor(float(counted.numel() // exact.shape[1]), device=exact.device))
        mean = _sum_of_ranks(counted.sum(others)) / count
        centred = exact - mean.view(shape)
        variance = _sum_of_ranks((centred[self.num_blank :] ** 2).sum(others)) / count
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


def share_batch_norms(module: nn.Module) -> list[SharedBatchNorm]:
    """Replace every BatchNorm layer inside a module, and list what replaces them.

    Parameters, buffers and their names stay.
    """
    shared = []
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            shared.append(SharedBatchNorm.of(child))
            setattr(module, name, shared[-1])
        else:
            shared += share_batch_norms(child)
    return shared


def restore_batch_norms(module: nn.Module) -> None:
    """Put back the layers that `share_batch_norms` has replaced; what was trained stays."""
    for name, child in module.named_children():
        if isinstance(child, SharedBatchNorm):
            setattr(module, name, child.plain)
        else:
            restore_batch_norms(child)


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
