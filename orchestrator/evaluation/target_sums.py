"""What an estimate of class frequencies needs of any number of predictions: it merges, and its size is bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.label_shift import MOST_IMAGES, Target
from orchestrator.evaluation.metrics import Probabilities, predict_classes


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetSums:
    """Hold the counts [K] of predicted classes, and the probabilities [n, K] of the images with the smallest keys [n].

    Keys are hashes of what images are called: the 20,000 smallest are a random sample, the same however the images were
    cut into parts and in whatever order these are added.
    """

    counts: NDArray[np.int64]
    keys: NDArray[np.uint64]
    probabilities: Probabilities

    @classmethod
    def of(cls, probabilities: Probabilities, keys: NDArray[np.uint64]) -> Self:
        """Sum up probabilities [n, K] of images with keys [n]; without keys only classes are counted."""
        counts = np.bincount(predict_classes(probabilities), minlength=probabilities.shape[1])
        return cls(counts=counts, keys=keys, probabilities=probabilities[: len(keys)])._bounded()

    def __add__(self, other: Self) -> Self:
        """Add the images of both; neither changes."""
        return type(self)(
            counts=self.counts + other.counts,
            keys=np.concatenate([self.keys, other.keys]),
            probabilities=np.concatenate([self.probabilities, other.probabilities]),
        )._bounded()

    def target(self) -> Target:
        """Give what frequencies are estimated from."""
        return Target(counts=self.counts, probabilities=self.probabilities)

    def _bounded(self) -> Self:
        smallest = np.argsort(self.keys, kind="stable")[:MOST_IMAGES]
        return type(self)(counts=self.counts, keys=self.keys[smallest], probabilities=self.probabilities[smallest])
