"""What ranks do together; each function does the plain thing when there is only one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.finetune.freezing import batch_norm_layers


def world_size() -> int:
    """Count the ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Give the number of this rank; 0 for the only one."""
    return dist.get_rank() if world_size() > 1 else 0


def distribute(suffix: nn.Module) -> nn.Module:
    """Wrap a module, all of whose parameters are trained, so that ranks average their gradients."""
    if world_size() == 1:
        return suffix
    # Buffers are averaged once an epoch; broadcasting them every step would keep only the first rank's.
    wrapped: nn.Module = DistributedDataParallel(suffix, broadcast_buffers=False)
    return wrapped


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add up a tensor over the ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Fill in the rows [n, d] of the other ranks, in place: each rank holds those that `rows_of_rank` gives."""
    for source in range(world_size()) if world_size() > 1 else ():
        part = rows[rows_of_rank(len(rows), source)]
        if len(part):
            # As bytes, because not every backend moves every float type.
            dist.broadcast(part.view(torch.uint8), src=source)
    return rows


def rows_of_rank(num_rows: int, rank: int) -> slice:
    """Give a rank's consecutive share of rows; shares differ by one row at most."""
    size = world_size()
    return slice(rank * num_rows // size, (rank + 1) * num_rows // size)


def average_batch_norm(suffix: nn.Module) -> None:
    """Average the running statistics of BatchNorm layers over the ranks, so that all hold the same model."""
    if world_size() == 1:
        return
    for layer in batch_norm_layers(suffix):
        for statistic in (layer.running_mean, layer.running_var):
            if statistic is not None:
                dist.all_reduce(statistic)
                statistic /= world_size()
        if layer.num_batches_tracked is not None:
            dist.all_reduce(layer.num_batches_tracked, op=dist.ReduceOp.MAX)
