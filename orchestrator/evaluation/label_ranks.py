"""How labels rank images by their scores, gathered part by part in memory that no number of images exceeds."""

from __future__ import annotations

import numpy as np

from orchestrator.evaluation.average_precision import average_precisions
from orchestrator.evaluation.metrics import Measures, Probabilities, Truth
from orchestrator.evaluation.multi_label import fit_thresholds
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.score_histograms import ScoreHistograms
from orchestrator.evaluation.scoring import MOST_RANKED_IMAGES


class LabelRanks:
    """Hold the probabilities of K labels that were added to 100,000 images; beyond, counts of them in bins."""

    def __init__(self, num_labels: int) -> None:
        nothing = np.zeros((0, num_labels), dtype=np.float32)
        self._parts: list[tuple[Probabilities, Truth]] = [(nothing, nothing > 0)]
        self._num_held = 0
        self._counted: ScoreHistograms | None = None

    def add(self, probabilities: Probabilities, truth: Truth) -> None:
        """Add probabilities [n, K] of labels that images have or have not [n, K]; n is at most some 100,000.

        Raises DataError when they are to be counted in bins and one is not finite.
        """
        self._parts.append((probabilities, truth))
        self._num_held += len(truth)
        if self._num_held > MOST_RANKED_IMAGES:
            self._counted = self._count(self._counted)

    def thresholds(self) -> Measures:
        """Give for each label [K] the threshold of the best F1, as `fit_thresholds` or `ScoreHistograms` fits it."""
        histograms = self._histograms()
        return fit_thresholds(*self._held()) if histograms is None else histograms.thresholds()

    def mean_average_precision(self) -> tuple[float | None, float | None]:
        """Average the precisions of labels over those that some image has, and bound how far that can be off.

        The bound is 0 to 100,000 images. Both are None where no image has a label.
        """
        histograms = self._histograms()
        if histograms is None:
            values = average_precisions(*self._held())
            errors = np.zeros_like(values)
        else:
            values, errors = histograms.average_precisions(), histograms.average_precision_errors()
        occurs = np.isfinite(values)
        if not occurs.any():
            return None, None
        return float(values[occurs].mean()), float(errors[occurs].mean())

    def _histograms(self) -> ScoreHistograms | None:
        """Give counts of all that was added; None where all of it is held."""
        if self._counted is not None:
            self._counted = self._count(self._counted)
        return self._counted

    def _count(self, counted: ScoreHistograms | None) -> ScoreHistograms:
        """Count what is held, beside what was counted, and hold it no longer."""
        histograms = ScoreHistograms.of(*self._held())
        self._parts, self._num_held = self._parts[:1], 0
        return histograms if counted is None else counted + histograms

    def _held(self) -> tuple[Probabilities, Truth]:
        probabilities, truth = zip(*self._parts, strict=True)
        return np.concatenate(probabilities), np.concatenate(truth)


def thresholds_of(predictions: PredictionParts) -> Measures:
    """Fit the threshold of each label [K] to predictions on images of any number of labels."""
    ranks = LabelRanks(predictions.num_classes)
    for part in predictions.parts():
        ranks.add(part.probabilities, part.label_sets)
    return ranks.thresholds()
