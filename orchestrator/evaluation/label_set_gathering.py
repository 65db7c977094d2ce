"""Gathers what scores of label sets and comparisons of them follow from, in memory that no number of images exceeds."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.evaluation.gathering import HeldOrTallied
from orchestrator.evaluation.label_set_tallies import LabelSetTally
from orchestrator.evaluation.metrics import Measures
from orchestrator.evaluation.multi_label import score_label_set_tally, score_label_sets
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.unit_buckets import buckets_of
from orchestrator.records import Scores


class LabelSetGathering(HeldOrTallied):
    """Hold what counts of the predictions that were added, on images of any number of labels, and of their baselines.

    To 100,000 images all of them are held, and every number is that of `score_label_sets` and `paired_gain`. Beyond, a
    `LabelSetTally` is, and intervals draw its buckets.
    """

    def __init__(self, labels: Sequence[str], thresholds: Measures, baselines: Sequence[str] = ()) -> None:
        super().__init__(baselines)
        self._labels = labels
        self._thresholds = thresholds
        self._tally = LabelSetTally.none(len(labels))

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
        self._tally += LabelSetTally.of(part, buckets_of(part), self._thresholds)
