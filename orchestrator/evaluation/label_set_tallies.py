"""The tally of predictions on images of any number of labels: it merges, and takes no more memory for more images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.intervals import Sums
from orchestrator.evaluation.label_set_sums import IMAGES, image_sums, num_sums
from orchestrator.evaluation.metrics import Measures, binary_losses, predict_labels
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.score_histograms import ScoreHistograms
from orchestrator.evaluation.tallies import chunks
from orchestrator.evaluation.unit_buckets import NUM_BUCKETS


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSetTally:
    """Hold what counts of the predictions on any number of images over K labels.

    Tallies of parts add up to that of the whole however it was cut: counts exactly, sums to rounding. The memory is
    262 kB a label, whatever the number of images.

    - `histograms` count the probabilities of labels; `loss` is the sum of binary cross-entropies in nats over images
      and labels.
    - `at_half` and `at_fitted` [4096, 3 K + 3] are the sums of `image_sums`, at 0.5 and at each label's threshold, over
      buckets of images by the name that they share with their kin, or their own: a bootstrap draws buckets instead, as
      with `UnitBuckets`.
    """

    histograms: ScoreHistograms
    loss: float
    at_half: Sums
    at_fitted: Sums

    @classmethod
    def none(cls, num_labels: int) -> Self:
        """Tally no image over K labels."""
        nothing = np.zeros((0, num_labels))
        sums = np.zeros((NUM_BUCKETS, num_sums(num_labels)))
        return cls(histograms=ScoreHistograms.of(nothing, nothing > 0), loss=0.0, at_half=sums, at_fitted=sums)

    @classmethod
    def of(cls, part: Predictions, buckets: NDArray[np.int64], thresholds: Measures) -> Self:
        """Tally predictions on images in buckets [n], see `buckets_of`, with the thresholds of labels [K].

        Raises DataError when a probability is not finite.
        """
        probabilities, truth = part.probabilities, part.label_sets
        histograms = ScoreHistograms.of(probabilities, truth)
        loss, (at_half, at_fitted) = 0.0, np.zeros((2, NUM_BUCKETS, num_sums(len(thresholds))))
        for rows in chunks(*truth.shape):
            given, has, places = probabilities[rows], truth[rows], buckets[rows]
            loss += float(binary_losses(given, has).sum())
            np.add.at(at_half, places, image_sums(predict_labels(given), has))
            np.add.at(at_fitted, places, image_sums(predict_labels(given, thresholds), has))
        return cls(histograms=histograms, loss=loss, at_half=at_half, at_fitted=at_fitted)

    def __add__(self, other: Self) -> Self:
        """Add the images of both; neither changes."""
        return type(self)(
            histograms=self.histograms + other.histograms,
            loss=self.loss + other.loss,
            at_half=self.at_half + other.at_half,
            at_fitted=self.at_fitted + other.at_fitted,
        )

    @property
    def num_images(self) -> int:
        """Count the images."""
        return int(self.at_half[:, IMAGES].sum())

    @property
    def is_held(self) -> NDArray[np.bool_]:
        """Tell which buckets [4096] hold images."""
        held: NDArray[np.bool_] = self.at_half[:, IMAGES] > 0
        return held
