"""Gathers what scores and comparisons follow from, part by part, in memory that no number of images exceeds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.intervals import bootstrap_interval, counted_interval, paired_gain
from orchestrator.evaluation.parts import PredictionParts, joined
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import MOST_RANKED_IMAGES, score, score_tally
from orchestrator.evaluation.tallies import Tally
from orchestrator.evaluation.unit_buckets import UnitBuckets
from orchestrator.records import Scores

Interval = tuple[float, float]


class HeldOrTallied(ABC):
    """Hold the predictions that are added, and their baselines, to 100,000 images; beyond, give them to a tally."""

    def __init__(self) -> None:
        self._num_images = 0
        self._parts: list[Predictions] = []

    def add(self, part: Predictions) -> None:
        """Add the predictions on some images; those in one call are at most some 100,000."""
        self._num_images += len(part)
        self._parts.append(part)
        if self._num_images > MOST_RANKED_IMAGES:
            for held in self._parts:
                self._count(held)
            self._parts = []

    def add_all(
        self, predictions: PredictionParts, correct: Mapping[str, NDArray[np.bool_]], subset: str | None = None
    ) -> Self:
        """Add all predictions, or those of a subset; `correct` says which of them [n] baselines got right."""
        seen = 0
        for part in predictions.parts(subset):
            rows = slice(seen, seen + len(part))
            self.add(part.with_baselines({name: answers[rows] for name, answers in correct.items()}))
            seen += len(part)
        return self

    @property
    def num_images(self) -> int:
        """Count the images that were added."""
        return self._num_images

    def held(self) -> Predictions | None:
        """Give all that was added; None where a tally is held instead."""
        if self._num_images > MOST_RANKED_IMAGES:
            return None
        self._parts = [joined(self._parts)]
        return self._parts[0]

    @abstractmethod
    def scores(self, bootstrap_samples: int, seed: int) -> Scores:
        """Score the predictions."""

    def accuracy_of(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        """Give the accuracy of a baseline with its interval; there must be images."""
        held = self.held()
        if held is None:
            return self._tallied_accuracy(baseline, bootstrap_samples, seed)
        correct = held.baselines[baseline]
        return float(correct.mean()), bootstrap_interval(correct, bootstrap_samples, seed, held.units)

    def gain_over(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        """Give how much more accurate the model is than a baseline, image by image, with the interval of that gain."""
        held = self.held()
        if held is None:
            return self._tallied_gain(baseline, bootstrap_samples, seed)
        return paired_gain(held.correct, held.baselines[baseline], bootstrap_samples, seed, held.units)

    @abstractmethod
    def _count(self, part: Predictions) -> None:
        """Tally the predictions on some images."""

    @abstractmethod
    def _tallied_accuracy(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        """Give what `accuracy_of` does from the tally."""

    @abstractmethod
    def _tallied_gain(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        """Give what `gain_over` does from the tally."""


class Gathering(HeldOrTallied):
    """Hold what counts of the predictions that were added, on images over K classes, and of their baselines.

    To 100,000 images all of them are held, and every number is that of `score` and `paired_gain`. Beyond, a tally is,
    with how often the model and each baseline were right together; where images have kin (`has_kin`), also the sums of
    buckets of them (`UnitBuckets`), which intervals then draw instead of kin. Intervals of single images are the same.
    """

    def __init__(self, num_classes: int, baselines: Sequence[str] = (), *, has_kin: bool) -> None:
        super().__init__()
        self._tally = Tally.of(np.zeros((0, num_classes)), np.zeros(0, dtype=np.int64))
        # By whether the model and the baseline are right.
        self._answers = {name: np.zeros((2, 2), dtype=np.int64) for name in baselines}
        self._kin = UnitBuckets(num_classes, baselines) if has_kin else None

    def scores(self, bootstrap_samples: int, seed: int) -> Scores:
        """Score the predictions."""
        held = self.held()
        if held is None:
            return score_tally(self._tally, bootstrap_samples=bootstrap_samples, seed=seed, kin=self._kin)
        return score(held.probabilities, held.indices, bootstrap_samples=bootstrap_samples, seed=seed, units=held.units)

    def _count(self, part: Predictions) -> None:
        self._tally += Tally.of(part.probabilities, part.indices)
        for name, answers in self._answers.items():
            np.add.at(answers, (part.correct.astype(np.int64), part.baselines[name].astype(np.int64)), 1)
        if self._kin is not None:
            self._kin.add(part)

    def _tallied_accuracy(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        wrong, right = self._answers[baseline].sum(axis=0).tolist()
        if self._kin is not None:
            return right / self._num_images, self._kin.accuracy_interval(baseline, bootstrap_samples, seed)
        counts = np.array([wrong, right])
        return right / self._num_images, counted_interval(np.array([0.0, 1.0]), counts, bootstrap_samples, seed)

    def _tallied_gain(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, Interval]:
        answers = self._answers[baseline]
        lost, won = int(answers[0, 1]), int(answers[1, 0])
        gain = (won - lost) / self._num_images
        if self._kin is not None:
            return gain, self._kin.gain_interval(baseline, bootstrap_samples, seed)
        counts = np.array([lost, self._num_images - lost - won, won])
        return gain, counted_interval(np.array([-1.0, 0.0, 1.0]), counts, bootstrap_samples, seed)
