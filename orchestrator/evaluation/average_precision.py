"""Average precision of labels: how well scores put the images that have a label before those that have not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.metrics import Measures, Truth, divided


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """Hold images in descending order of one label's scores, so that any weighing of them can be measured.

    `order` [n] are positions, `ends` [d] the places in it where each of the d different scores ends, `truth` [n] tells
    in that order who has the label.
    """

    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    truth: Truth

    @classmethod
    def of(cls, scores: NDArray[np.floating], truth: Truth) -> Self:
        """Rank images by scores [n]; `truth` [n] tells which have the label."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else order
        return cls(order=order, ends=ends, truth=truth[order])

    def average_precision(self, weights: NDArray[np.number] | None = None) -> Measures:
        """Give the average precision [...] of images with weights [..., n], by default one each.

        The sum over score thresholds, from the highest down, of the precision there times the recall it adds, as
        scikit-learn has it; equal scores are one threshold. Not a number where no image has the label.
        """
        predicted, found = self._above(weights)
        precision = np.divide(found, predicted, out=np.zeros_like(found), where=predicted > 0)
        added = np.diff(found, axis=-1, prepend=0.0)
        # Without images there is no threshold, and no total.
        total = found[..., -1] if len(self.ends) else np.zeros(found.shape[:-1])
        return divided((precision * added).sum(axis=-1), total)

    def area(self, weights: NDArray[np.number] | None = None) -> Measures:
        """Give the area under the ROC curve [...] of images with weights [..., n], by default one each.

        The chance that an image which has the label is above one which has not, equal scores counting half: the
        trapezia between score thresholds. Not a number where not both are there.
        """
        predicted, found = self._above(weights)
        others = predicted - found
        of_others, of_found = (np.diff(sums, axis=-1, prepend=0.0) for sums in (others, found))
        below = (of_others * (found - of_found / 2)).sum(axis=-1)
        if not len(self.ends):
            return np.full(np.shape(below), np.nan)
        return divided(below, found[..., -1] * others[..., -1])

    def _above(self, weights: NDArray[np.number] | None) -> tuple[Measures, Measures]:
        """Sum up the weights of the images, and of those with the label, down to each threshold [..., d]."""
        ones = np.ones(len(self.order)) if weights is None else weights[..., self.order].astype(np.float64)
        predicted: Measures = np.cumsum(ones, axis=-1)[..., self.ends]
        found: Measures = np.cumsum(ones * self.truth, axis=-1)[..., self.ends]
        return predicted, found


def average_precisions(scores: NDArray[np.floating], truth: Truth) -> Measures:
    """Give the average precision of each label [K] for scores [n, K], of any monotone kind, and `truth` [n, K].

    Not a number for a label that no image has.
    """
    columns = range(scores.shape[1])
    return np.array([float(Ranking.of(scores[:, k], truth[:, k]).average_precision()) for k in columns])


def mean_average_precision(scores: NDArray[np.floating], truth: Truth) -> float | None:
    """Average the precisions of labels over those that some image has; None where none has any."""
    found = average_precisions(scores, truth)
    known = found[np.isfinite(found)]
    return float(known.mean()) if len(known) else None
