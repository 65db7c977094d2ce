"""Measures ranks again on resamples: areas under ROC curves and average precisions, with the same draws for all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import eye_array

from orchestrator.evaluation.average_precision import Ranking
from orchestrator.evaluation.intervals import Estimates, Sums, Units, resample
from orchestrator.evaluation.metrics import ClassIndices, Probabilities

MOST_RESAMPLED_ANSWERS = 2**19
"""The most answers, images times classes or labels, whose ranks are resampled."""

# Ranking answers again is dear: of many there are fewer resamples, 256 at the least, for some ten seconds of work.
_MOST_WEIGHED_ANSWERS = 2**27

Weights = NDArray[np.float64]


def resample_ranks(
    num_images: int,
    num_classes: int,
    measure: Callable[[Weights], Estimates],
    *,
    samples: int,
    seed: int,
    units: Units | None,
) -> Estimates:
    """Give `measure` [samples, ...] of bootstrap resamples: how often each of n images was drawn, [b, n].

    Images that share their number in `units` [n] are drawn together. Of many answers, n times `num_classes`, there
    are fewer than `samples`.
    """
    unit_of: NDArray[np.integer] = np.arange(num_images) if units is None else units
    num_units = int(unit_of.max()) + 1

    def of_units(drawn: Sums) -> Estimates:
        return measure(np.asarray(drawn)[:, unit_of])

    once = np.ones(num_units, dtype=np.int64)
    fewer = min(samples, max(1, _MOST_WEIGHED_ANSWERS // (num_images * num_classes)))
    return resample(eye_array(num_units, format="csr"), once, fewer, seed, of_units)


def resample_areas(
    probabilities: Probabilities, truth: ClassIndices, *, samples: int, seed: int, units: Units | None
) -> Estimates | None:
    """Give the one-vs-rest area under the ROC curve of each class [samples, K] on resamples of n images.

    Not a number for a class that a resample has not images both of and of others. None where there are too many answers
    (`MOST_RESAMPLED_ANSWERS`).
    """
    num_images, num_classes = probabilities.shape
    if probabilities.size > MOST_RESAMPLED_ANSWERS:
        return None
    rankings = [Ranking.of(probabilities[:, k], truth == k) for k in range(num_classes)]
    return resample_ranks(
        num_images,
        num_classes,
        lambda weights: np.stack([ranking.area(weights) for ranking in rankings], axis=1),
        samples=samples,
        seed=seed,
        units=units,
    )
