"""Samples with any number of labels: how they are told, dealt into splits, and judged after an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from orchestrator.errors import TrainingError
from orchestrator.evaluation.average_precision import mean_average_precision
from orchestrator.finetune.classifier import EVALUATION_BATCH
from orchestrator.finetune.contracts import BatchStream, Labels, Samples
from orchestrator.finetune.distributed import sum_over_ranks
from orchestrator.records import Hyperparameters


def is_multi_label(labels: Labels) -> TypeGuard[NDArray[np.float32]]:
    """Tell labels of which a sample has any number, float32 [n, K], from class indices."""
    return labels.dtype == np.float32


def rarest_labels(labels: NDArray[np.float32]) -> NDArray[np.int64]:
    """Give each sample's rarest label [n] among those of labels [n, K], the first of equals; K where it has none.

    Splits that hold alike shares of these hold the rare labels, which chance would leave out first. It is the first
    step of the iterative stratification of Sechidis, Tsoumakas and Vlahavas ("On the Stratification of Multi-Label
    Data", 2011) without its later ones: frequent labels are dealt as they come with the rare ones.
    """
    counts = np.where(labels > 0, labels.sum(axis=0), np.inf)
    rarest: NDArray[np.int64] = counts.argmin(axis=1).astype(np.int64)
    return np.where(labels.any(axis=1), rarest, labels.shape[1])


def judge_label_sets(
    logits_of: Callable[[NDArray[np.int64]], Tensor], mine: NDArray[np.int64], labels: Labels, device: str
) -> tuple[float, float]:
    """Give the mean binary cross-entropy of validation samples and their mean average precision.

    `logits_of` gives the logits of positions; `mine` are those of this rank, `labels` float32 [n, K] those of all. The
    mean average precision is over the labels that a validation sample has, 0 where none has any.
    """
    logits = torch.zeros(labels.shape, dtype=torch.float32, device=device)
    for start in range(0, len(mine), EVALUATION_BATCH):
        positions = mine[start : start + EVALUATION_BATCH]
        logits[torch.from_numpy(positions).to(device)] = logits_of(positions)
    # Every other rank adds zeros to what one rank has found: all come to the same figures, whatever their number.
    logits = sum_over_ranks(logits)
    truth = torch.from_numpy(labels).to(device, torch.float32)
    loss = float(binary_cross_entropy_with_logits(logits.double(), truth.double()))
    return loss, mean_average_precision(logits.cpu().numpy(), labels > 0) or 0.0


def require_label_sets(
    train: Samples | BatchStream, validation: Samples, hyperparameters: Hyperparameters, *, num_labels: int
) -> None:
    """Check that the loss is that of the samples' labels. Raises TrainingError."""
    for labels in (train.no_labels if isinstance(train, BatchStream) else train.labels, validation.labels):
        if is_multi_label(labels) != hyperparameters.is_multi_label:
            raise TrainingError(
                "binary_cross_entropy must be the loss of samples with any number of labels, and of no others",
                value=hyperparameters.loss,
                remedy="Correct finetune.loss or data.label_separator.",
            )
        if hyperparameters.is_multi_label and labels.shape[1:] != (num_labels,):
            raise TrainingError(f"labels must be indicators of {num_labels} classes", value=labels.shape)
