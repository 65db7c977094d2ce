"""Judges epochs: whether a loss is still finite, and which epoch of a history is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.errors import DivergedError
from orchestrator.finetune.contracts import Metric
from orchestrator.records import EpochMetrics


def require_finite(metrics: EpochMetrics) -> None:
    """Raise DivergedError when a loss of the epoch is not finite."""
    if not (math.isfinite(metrics.train_loss) and math.isfinite(metrics.val_loss)):
        raise DivergedError(
            "the loss must stay finite",
            value=f"{metrics.train_loss} in training and {metrics.val_loss} in validation at epoch {metrics.epoch}",
            remedy="Lower the learning rate.",
        )


def is_better(new: EpochMetrics, best: EpochMetrics, metric: Metric) -> bool:
    """Tell whether an epoch beats the best one: of equal accuracies the lesser loss wins, of equal losses age."""
    if metric == "val_loss":
        return new.val_loss < best.val_loss
    # Few validation images give many equal accuracies, of which the loss tells the better.
    return (new.val_accuracy, -new.val_loss) > (best.val_accuracy, -best.val_loss)


def best_epoch(history: Sequence[EpochMetrics], metric: Metric) -> int:
    """Give the number of the best epoch of a history that has at least one."""
    best = history[0]
    for metrics in history[1:]:
        best = metrics if is_better(metrics, best, metric) else best
    return best.epoch
