"""Decides during a trial whether it may go on, by what other trials had reached at the same part of their schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """Thin the field at fixed fractions of every trial's own schedule.

    The rule is asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning",
    2020) with rungs at fractions instead of epochs, so that short and long trials are compared at like stages: a
    trial goes on from a rung when it is among the best share `keep` of those seen there. The share is larger at the
    first rung: deep trainings start behind heads that they overtake later. With fewer than `least_seen` there,
    nobody is stopped; nor is one within `margin` of the border, which is noise.
    """

    rungs: tuple[float, ...] = (0.25, 0.5)
    keep: tuple[float, ...] = (0.75, 0.5)
    least_seen: int = 5
    margin: float = 0.0

    def rung_passed(self, epoch: int, epochs: int) -> float | None:
        """Give the rung that a trial of `epochs` epochs comes to at the end of `epoch`; None between rungs.

        The last epoch is no rung: there is nothing left to save.
        """
        if epoch >= epochs:
            return None
        reached = [rung for rung in self.rungs if epoch >= rung * epochs > epoch - 1]
        return max(reached, default=None)

    def stops(self, values: Sequence[float], seen: Sequence[float], *, rung: float) -> bool:
        """Tell whether a trial with `values` so far ends at a rung where others had reached `seen`.

        All are such that greater is better; the best one so far counts. A value that is not finite ends it.
        """
        if not math.isfinite(values[-1]):
            return True
        if len(seen) + 1 < self.least_seen:
            return False
        border = np.quantile(np.append(seen, max(values)), 1.0 - self.keep[self.rungs.index(rung)])
        return bool(max(values) < border - self.margin)


def best_at(values: Sequence[float], rung: float, epochs: int) -> float | None:
    """Give what a trial's finished or stopped history had reached at a rung; None when it did not come there."""
    needed = max(1, math.ceil(rung * epochs))
    finite = [value for value in values[:needed] if math.isfinite(value)]
    return max(finite) if len(values) >= needed and finite else None
