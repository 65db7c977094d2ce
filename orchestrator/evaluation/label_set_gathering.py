"""Gathers what scores of label sets and comparisons of them follow from, in memory that no number of images exceeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.gathering import HeldOrTallied, Interval
from orchestrator.evaluation.intervals import mean_interval
from orchestrator.evaluation.label_set_sums import IMAGES, RIGHT
from orchestrator.evaluation.label_set_tallies import LabelSetTally
from orchestrator.evaluation.metrics import Measures
from orchestrator.evaluation.multi_label import score_label_set_tally, score_label_sets
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.unit_buckets import NUM_BUCKETS, buckets_of
from orchestrator.records import Scores


class LabelSetGathering(HeldOrTallied):
    """Hold what counts of the predictions that were added, on images of any number of labels, and of their baselines.

    To 100,000 images all of them are held, and every number is that of `score_label_sets` and `paired_gain`. Beyond, a
    `LabelSetTally` is, and intervals draw its buckets.
    """

    def __init__(self, labels: Sequence[str], thresholds: Measures, baselines: Sequence[str] = ()) -> None:
        super().__init__()
        self._labels = labels
        self._thresholds = thresholds
        self._tally = LabelSetTally.none(len(labels))
        # By bucket, the images that a baseline got right.
        self._right = {name: np.zeros(NUM_BUCKETS) for name in baselines}

    def scores(self, bootstrap_samples: int, seed: int) -> Scores:
        """Score the predictions."""
        held = self.held()
        if held is None:
            return score_label_set_tally(
                self._tally, self._labels, self._thresholds, bootstrap_samples=bootstrap_samples, seed=seed
            )
        return score_label_sets(
            held.probabilities,
            held.label_sets,
            self._labels,
            self._thresholds,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            units=held.units,
        )

    def _count(self, part: Predictions) -> None:
        buckets = buckets_of(part)
        self._tally += LabelSetTally.of(part, buckets, self._thresholds)
        for name, right in self._right.items():
            right += np.bincount(buckets, part.baselines[name], minlength=NUM_BUCKETS)

    def _tallied_accuracy(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        return self._mean(self._right[baseline], bootstrap_samples, seed)

    def _tallied_gain(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        return self._mean(self._tally.at_half[:, RIGHT] - self._right[baseline], bootstrap_samples, seed)

    def _mean(self, sums: NDArray[np.float64], bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        """Give the mean over images of what buckets [4096] sum up, with its interval."""
        rows = np.stack([sums, self._tally.at_half[:, IMAGES]], axis=1)[self._tally.is_held]
        interval = mean_interval(*np.unique(rows, axis=0, return_counts=True), bootstrap_samples, seed)
        return float(sums.sum()) / self._num_images, interval
