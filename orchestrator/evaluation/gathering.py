"""Gathers what scores and comparisons follow from, part by part, in memory that no number of images exceeds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np

from orchestrator.evaluation.paired_answers import PairedAnswers, PairedGain
from orchestrator.evaluation.parts import PredictionParts, joined
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import MOST_RANKED_IMAGES, score, score_tally
from orchestrator.evaluation.tallies import Tally
from orchestrator.evaluation.unit_buckets import UnitBuckets
from orchestrator.records import Scores

_NONE = np.zeros(0, dtype=np.bool_)


class HeldOrTallied(ABC):
    """Hold the predictions that are added to 100,000 images; beyond, give them to a tally.

    What baselines got right is held as `PairedAnswers`, however many images there are.
    """

    def __init__(self, baselines: Sequence[str]) -> None:
        self._num_images = 0
        self._parts: list[Predictions] = []
        self._answers = PairedAnswers.of(_NONE, dict.fromkeys(baselines, _NONE), [])

    def __len__(self) -> int:
        """Count the images."""
        return self._num_images

    @property
    def answers(self) -> PairedAnswers:
        """Give what the model and its baselines got right; nothing where there are no baselines."""
        return self._answers

    def add(self, part: Predictions) -> None:
        """Add the predictions on some images; those in one call are at most some 100,000."""
        self._num_images += len(part)
        self._parts.append(part)
        if names := self._answers.others:
            others = {name: part.baselines[name] for name in names}
            self._answers += PairedAnswers.of(part.correct, others, part.together)
        if self._num_images > MOST_RANKED_IMAGES:
            for held in self._parts:
                self._count(held)
            self._parts = []

    def add_all(self, predictions: PredictionParts, subset: str | None = None) -> Self:
        """Add all predictions, or those of a subset."""
        for part in predictions.parts(subset):
            self.add(part)
        return self

    def held(self) -> Predictions | None:
        """Give all that was added; None where a tally is held instead."""
        if self._num_images > MOST_RANKED_IMAGES:
            return None
        self._parts = [joined(self._parts)]
        return self._parts[0]

    @abstractmethod
    def scores(self, bootstrap_samples: int, seed: int) -> Scores:
        """Score the predictions."""

    def accuracy_of(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, tuple[float, float]]:
        """Give the accuracy of a baseline with its interval; there must be images."""
        interval = self._answers.accuracy_interval(baseline, bootstrap_samples, seed)
        return self._answers.accuracy_of(baseline), interval

    def gain_over(self, baseline: str, bootstrap_samples: int, seed: int) -> PairedGain:
        """Give how much more accurate the model is than a baseline, image by image, with the interval of that gain."""
        return self._answers.gain_over(baseline, bootstrap_samples, seed)

    @abstractmethod
    def _count(self, part: Predictions) -> None:
        """Tally the predictions on some images."""


class Gathering(HeldOrTallied):
    """Hold what counts of the predictions that were added, on images over K classes, and of their baselines.

    To 100,000 images all of them are held, and every number is that of `score` and `paired_gain`. Beyond, a tally is,
    and where images have kin (`has_kin`) also the sums of buckets of them (`UnitBuckets`), which intervals then draw
    instead of kin. Intervals of single images are the same.
    """

    def __init__(self, num_classes: int, baselines: Sequence[str] = (), *, has_kin: bool) -> None:
        super().__init__(baselines)
        self._tally = Tally.of(np.zeros((0, num_classes)), np.zeros(0, dtype=np.int64))
        self._kin = UnitBuckets(num_classes) if has_kin else None

    def scores(self, bootstrap_samples: int, seed: int) -> Scores:
        """Score the predictions."""
        held = self.held()
        if held is None:
            return score_tally(self._tally, bootstrap_samples=bootstrap_samples, seed=seed, kin=self._kin)
        return score(held.probabilities, held.indices, bootstrap_samples=bootstrap_samples, seed=seed, units=held.units)

    def _count(self, part: Predictions) -> None:
        self._tally += Tally.of(part.probabilities, part.indices)
        if self._kin is not None:
            self._kin.add(part)


def gather(predictions: PredictionParts, baselines: Sequence[str] = (), subset: str | None = None) -> Gathering:
    """Add up the predictions, or those of a subset, beside what these of their baselines got right."""
    gathered = Gathering(predictions.num_classes, baselines, has_kin=predictions.has_kin(subset))
    return gathered.add_all(predictions, subset)
