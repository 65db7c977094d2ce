"""Judges epochs: whether a loss is still finite, which epoch of a history is kept, and what folds say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

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


@dataclass(kw_only=True)
class FoldHistory:
    """Keep the epochs of one configuration on every fold of a cross-validation, and their means."""

    means: list[EpochMetrics] = field(default_factory=list)
    _epochs: list[tuple[EpochMetrics, ...]] = field(default_factory=list)

    def append(self, folds: Sequence[EpochMetrics]) -> EpochMetrics:
        """Add what the same epoch found on each fold, and give the mean."""
        values = {
            name: float(np.mean([getattr(metrics, name) for metrics in folds]))
            for name in ("train_loss", "val_loss", "val_accuracy")
        }
        mean = EpochMetrics(epoch=folds[0].epoch, **values)
        self.means.append(mean)
        self._epochs.append(tuple(folds))
        return mean

    def standard_error(self, metric: Metric) -> float | None:
        """Give that of the mean in the best epoch: the sample deviation over sqrt(k); None for less than two folds.

        Folds share training samples, so that it tends to be too small, and no estimator without bias exists (Bengio
        and Grandvalet, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation", 2004).
        """
        if not self.means:
            return None
        values = [float(getattr(metrics, metric)) for metrics in self._epochs[best_epoch(self.means, metric) - 1]]
        return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
