"""What is kept of a baseline's answers on images of any number of labels, gathered part by part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.answers import pack, pack_matrix
from orchestrator.evaluation.label_ranks import LabelRanks
from orchestrator.evaluation.metrics import Truth, predict_labels
from orchestrator.evaluation.rank_resampling import MOST_RESAMPLED_ANSWERS


class LabelAnswers:
    """Hold which of n images have all their K labels right at 0.5, and how well the labels rank them.

    To 524,288 answers, images times labels, that is by all probabilities, so that a gain can be given an interval;
    beyond, by `LabelRanks`.
    """

    def __init__(self, num_images: int, num_labels: int) -> None:
        is_kept = num_images * num_labels <= MOST_RESAMPLED_ANSWERS
        self._correct = np.zeros(num_images, dtype=np.bool_)
        self._probabilities = np.zeros((num_images, num_labels), dtype=np.float32) if is_kept else None
        self._ranks = LabelRanks(num_labels)

    def add(self, places: NDArray[np.int64], probabilities: NDArray[np.float32], truth: Truth) -> None:
        """Add probabilities [m, K], and which labels there are [m, K], of the images at these places [m]."""
        self._correct[places] = (predict_labels(probabilities) == truth).all(axis=1)
        if self._probabilities is None:
            self._ranks.add(probabilities, truth)
        else:
            self._probabilities[places] = probabilities

    def fields(self) -> dict[str, Any]:
        """Give the fields of a `BaselineResult` that hold them."""
        kept = {"correct": pack(self._correct)}
        if self._probabilities is not None:
            return {**kept, "probabilities": pack_matrix(self._probabilities)}
        value, error = self._ranks.mean_average_precision()
        return {**kept, "mean_average_precision": value, "mean_average_precision_error": error}
