"""Gathers what scores and comparisons follow from, part by part, in memory that no number of images exceeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.paired_answers import PairedAnswers, PairedGain
from orchestrator.evaluation.parts import PredictionParts, joined
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import MOST_RANKED_IMAGES, score, score_tally
from orchestrator.evaluation.tallies import Tally
from orchestrator.evaluation.unit_buckets import UnitBuckets
from orchestrator.records import Scores

_NONE = np.zeros(0, dtype=np.bool_)


class Gathering:
    """Hold what counts of the predictions that were added, on images over K classes, and of their baselines.

    To 100,000 images all of them are held, and every number is that of `score` and `paired_gain`. Beyond, a tally is,
    and where images have kin (`has_kin`) also the sums of buckets of them (`UnitBuckets`), which intervals then draw
    instead of kin. Intervals of single images are the same. What baselines got right is held as `PairedAnswers`.
    """

    def __init__(self, num_classes: int, baselines: Sequence[str] = (), *, has_kin: bool) -> None:
        self._num_images = 0
        self._held: list[Predictions] = []
        self._tally = Tally.of(np.zeros((0, num_classes)), np.zeros(0, dtype=np.int64))
        self._answers = PairedAnswers.of(_NONE, dict.fromkeys(baselines, _NONE), [])
        self._kin = UnitBuckets(num_classes) if has_kin else None

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
        self._held.append(part)
        if names := self._answers.others:
            others = {name: part.baselines[name] for name in names}
            self._answers += PairedAnswers.of(part.correct, others, part.together)
        if self._num_images > MOST_RANKED_IMAGES:
            for held in self._held:
                self._count(held)
            self._held = []

    def scores(self, bootstrap_samples: int, seed: int) -> Scores:
        """Score the predictions."""
        if self._num_images > MOST_RANKED_IMAGES:
            return score_tally(self._tally, bootstrap_samples=bootstrap_samples, seed=seed, kin=self._kin)
        held = self._held_images()
        return score(
            held.probabilities, held.indices, bootstrap_samples=bootstrap_samples, seed=seed, units=self._units(held)
        )

    def accuracy_of(self, baseline: str, bootstrap_samples: int, seed: int) -> tuple[float, tuple[float, float]]:
        """Give the accuracy of a baseline with its interval; there must be images."""
        interval = self._answers.accuracy_interval(baseline, bootstrap_samples, seed)
        return self._answers.accuracy_of(baseline), interval

    def gain_over(self, baseline: str, bootstrap_samples: int, seed: int) -> PairedGain:
        """Give how much more accurate the model is than a baseline, image by image, with the interval of that gain."""
        return self._answers.gain_over(baseline, bootstrap_samples, seed)

    def _count(self, part: Predictions) -> None:
        self._tally += Tally.of(part.probabilities, part.indices)
        if self._kin is not None:
            self._kin.add(part)

    def _held_images(self) -> Predictions:
        self._held = [joined(self._held)]
        return self._held[0]

    def _units(self, held: Predictions) -> NDArray[np.int64] | None:
        return None if self._kin is None else held.units


def gather(predictions: PredictionParts, baselines: Sequence[str] = (), subset: str | None = None) -> Gathering:
    """Add up the predictions, or those of a subset, beside what these of their baselines got right."""
    gathered = Gathering(predictions.num_classes, baselines, has_kin=predictions.has_kin(subset))
    for part in predictions.parts(subset):
        gathered.add(part)
    return gathered
