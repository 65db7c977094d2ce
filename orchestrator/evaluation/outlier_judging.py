"""How well scores tell images of the source from any number of the target's, given part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import Negatives
from orchestrator.evaluation.intervals import Estimates, Sums, by_unit, percentile_interval, resample
from orchestrator.evaluation.outliers import Scores, judge_outliers
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.predictions import Predictions, number_units
from orchestrator.evaluation.scoring import MOST_RANKED_IMAGES
from orchestrator.evaluation.unit_buckets import NUM_BUCKETS, buckets_of
from orchestrator.records import OutlierScores


def judge_predicted_outliers(
    predictions: PredictionParts,
    source: Scores,
    negatives: Negatives,
    *,
    source_together: Sequence[str],
    bootstrap_samples: int,
    seed: int,
) -> OutlierScores | None:
    """Judge the outlier scores of the target's predictions and those [m] of a sample of the source's images.

    None where a side has none. `source_together` [m] is what an image of the source shares with its kin. To 100,000
    images of both sides together they are judged at once (`judge_outliers`). Beyond, the target's scores are counted
    by their place among the source's (`PlaceCounts`): the area is that of all ranks still. Its interval draws as many
    images of both sides; where the target's have kin, 4,096 buckets of it (see `UnitBuckets`).
    """
    if not len(source):
        return None
    if len(predictions) + len(source) <= MOST_RANKED_IMAGES:
        parts = list(_scored(predictions))
        return judge_outliers(
            np.concatenate([np.zeros(0), *(scores for _, scores in parts)]),
            source,
            negatives,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            units=number_units([name for part, _ in parts for name in part.together]),
            source_units=number_units(source_together),
        )
    counts = PlaceCounts(source, source_together, has_kin=predictions.has_kin())
    for part, scores in _scored(predictions):
        counts.add(part, scores)
    if not counts.num_images:
        return None
    return OutlierScores(
        negatives=negatives,
        auc=counts.area(),
        auc_interval=percentile_interval(counts.resampled_areas(bootstrap_samples, seed)),
        num_target=counts.num_images,
        num_source=len(source),
    )


class PlaceCounts:
    """Count the target's images by where their scores lie among the D different ones of the source's m images.

    The places are below the lowest of them, at it, between it and the next, and so on: 2 D + 1. A score's place says of
    each of the source whether it is above, below or the same, which is all that the area under the ROC curve asks for:
    nothing is lost to bins, whatever the scores crowd at. The memory does not grow with the target's images: for a
    thousand of the source's it is 0.1 GB, 0.2 GB where the target's have kin.
    """

    def __init__(self, source: Scores, together: Sequence[str], *, has_kin: bool) -> None:
        self._levels, self._source = np.unique(source, return_inverse=True)
        self._source_units = number_units(together)
        self._counts = np.zeros(2 * len(self._levels) + 1, dtype=np.int64)
        self._kin = np.zeros((NUM_BUCKETS, len(self._counts)), dtype=np.int32) if has_kin else None

    def add(self, part: Predictions, scores: Scores) -> None:
        """Add images of the target with their scores [n]."""
        places = np.searchsorted(self._levels, scores) + np.searchsorted(self._levels, scores, side="right")
        self._counts += np.bincount(places, minlength=len(self._counts))
        if self._kin is not None:
            np.add.at(self._kin, (buckets_of(part), places), 1)

    @property
    def num_images(self) -> int:
        """Count the images of the target."""
        return int(self._counts.sum())

    def area(self) -> float:
        """Give the chance that a score of the source is above one of the target, ties by half."""
        of_source = np.bincount(self._source).astype(np.float64)
        return float(_areas(_below(self._counts), of_source))

    def resampled_areas(self, samples: int, seed: int) -> Estimates:
        """Give the area [samples] for resamples of both sides."""
        of_target, of_source = np.random.SeedSequence(seed).generate_state(2).tolist()
        if self._kin is None:
            places = np.flatnonzero(self._counts)
            rows, counts = _below(np.eye(len(self._counts))[places]), self._counts[places]
        else:
            rows = _below(self._kin[self._kin.any(axis=1)])
            counts = np.ones(len(rows), dtype=np.int64)
        below = resample(rows, counts, samples, of_target, _themselves)
        return _areas(below, self._resampled_source(samples, of_source))

    def _resampled_source(self, samples: int, seed: int) -> Sums:
        """Give how many images of the source have each of its scores [samples, D] in resamples."""
        num_levels = len(self._levels)
        if self._source_units is None:
            return resample(np.eye(num_levels), np.bincount(self._source), samples, seed, _themselves)
        rows = by_unit(self._source_units, self._source, np.ones(len(self._source)), num_levels)
        return resample(rows, np.ones(rows.shape[0], dtype=np.int64), samples, seed, _themselves)


def _scored(predictions: PredictionParts) -> Iterator[tuple[Predictions, Scores]]:
    for part in predictions.parts():
        if part.outlier_scores is not None:
            yield part, part.outlier_scores


def _below(counts: NDArray[np.number]) -> Sums:
    """Count the images below each score of the source, half of those at it, and all [..., D + 1].

    `counts` [..., 2 D + 1] are by place.
    """
    reached = counts.cumsum(axis=-1, dtype=counts.dtype)
    return np.concatenate([reached[..., :-1:2] + counts[..., 1::2] / 2, reached[..., -1:]], axis=-1)


def _areas(below: Sums, of_source: Sums) -> Estimates:
    """Give areas [...] from what lies below each score of the source [..., D + 1] and how many have it [..., D]."""
    areas: Estimates = (below[..., :-1] * of_source).sum(axis=-1) / (below[..., -1] * of_source.sum(axis=-1))
    return areas


def _themselves(sums: Sums) -> Estimates:
    return sums
