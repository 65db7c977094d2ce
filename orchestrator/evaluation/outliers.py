"""How little an image looks like those of the target, and how well that tells the source's apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from orchestrator.config import Negatives
from orchestrator.evaluation.intervals import Units, percentile_interval
from orchestrator.records import OutlierScores

Probabilities = NDArray[np.float32]
Scores = NDArray[np.float64]


def tell_outliers(probabilities: Probabilities, negatives: Negatives) -> tuple[Probabilities, Scores | None]:
    """Give the probabilities [n, K] of the classes, and a score [n] in [0, 1] of how little an image is one of them.

    `reject`: the last of K + 1 columns is the score, and what is left of the others is divided by its sum. For
    `outlier_exposure` the score is one minus the largest probability (Hendrycks and Gimpel, "A Baseline for Detecting
    Misclassified and Out-of-Distribution Examples", 2017). Without negatives there is none.
    """
    if negatives == "none":
        return probabilities, None
    if negatives == "reject":
        known, scores = probabilities[:, :-1], probabilities[:, -1].astype(np.float64)
        totals = known.sum(axis=1, keepdims=True, dtype=np.float64)
        # Where nothing is left that a float32 can hold, no class is more likely than another.
        shares = np.where(totals > 0, known / np.where(totals > 0, totals, 1), 1 / max(1, known.shape[1]))
        return shares.astype(np.float32), scores
    # The sum of the others keeps its digits where the largest is next to one.
    others = np.sort(probabilities.astype(np.float64), axis=1)[:, :-1]
    return probabilities, others.sum(axis=1)


def area_under_curve(target: Scores, source: Scores) -> float:
    """Give the chance that a source score [m] is above a target score [n], ties by half: the area under the ROC curve.

    By ranks (Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger", 1947).
    """
    ranks = rankdata(np.concatenate([target, source]))
    least = len(source) * (len(source) + 1) / 2
    return float((ranks[len(target) :].sum() - least) / (len(target) * len(source)))


def judge_outliers(
    target: Scores,
    source: Scores,
    negatives: Negatives,
    *,
    bootstrap_samples: int,
    seed: int,
    units: Units | None = None,
    source_units: Units | None = None,
) -> OutlierScores | None:
    """Judge the scores [n] of the target's images and those [m] of the source's; None where a side has none.

    The interval resamples the images of both sides, those together that share their number in `units` [n] and
    `source_units` [m], counted from 0; None where every image is alone.
    """
    if not len(target) or not len(source):
        return None
    rng = np.random.default_rng(seed)
    sides = [_Drawn.of(target, units), _Drawn.of(source, source_units)]
    resampled = [area_under_curve(*(side.again(rng) for side in sides)) for _ in range(bootstrap_samples)]
    return OutlierScores(
        negatives=negatives,
        auc=area_under_curve(target, source),
        auc_interval=percentile_interval(np.array(resampled)),
        num_target=len(target),
        num_source=len(source),
    )


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Hold the scores of one side, by what is drawn as one."""

    kin: list[Scores]
    is_alone: bool

    @classmethod
    def of(cls, scores: Scores, units: Units | None) -> _Drawn:
        if units is None:
            return cls(kin=[scores], is_alone=True)
        order = np.argsort(units, kind="stable")
        return cls(kin=np.split(scores[order], np.cumsum(np.bincount(units))[:-1]), is_alone=False)

    def again(self, rng: np.random.Generator) -> Scores:
        """Draw as many with replacement."""
        if self.is_alone:
            return rng.choice(self.kin[0], len(self.kin[0]))
        return np.concatenate([self.kin[place] for place in rng.integers(len(self.kin), size=len(self.kin))])
