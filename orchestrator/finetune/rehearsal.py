"""Measures what epochs of a training take, on a part of its samples, and compares two trainings by that."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from statistics import median

import numpy as np
from numpy.typing import NDArray

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import ChosenSamples, Companion
from orchestrator.finetune.contracts import BatchStream, Labels, Samples, TrainingSettings
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.loop import Training
from orchestrator.finetune.tasks import class_indices
from orchestrator.records import BackboneSpec, Hyperparameters

_LEAST_ROUNDS = 3
_MOST_ROUNDS = 15
_LEAST_SECONDS = 1.0
_PIECE_ROWS = 64
_IN_PLACE_OF_EARLY_STOPS = {"strategy": "freeze", "patience": None}


@dataclass(frozen=True, kw_only=True)
class EpochTimes:
    """Hold what epochs of a training take in seconds: the first with all that comes before it, and a later one.

    Before the first epoch the outputs of frozen stages are computed that later ones take from memory. `later_s` is 0
    where a training has one epoch alone.
    """

    first_s: float
    later_s: float

    @property
    def total_s(self) -> float:
        """Give the seconds of both."""
        return self.first_s + self.later_s


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Hold a training of which two epochs are tried on a part of its samples; `fine_tune` says what its parts are.

    All that the recipe ever trains is trained from the first epoch on, whatever phases its strategy has.
    """

    new_classifier: Callable[[], Classifier]
    spec: BackboneSpec
    train: Samples | BatchStream
    validation: Samples
    hyperparameters: Hyperparameters
    settings: TrainingSettings
    companion: Companion | None = None

    def times(self, clock: Callable[[], float] | None = None) -> EpochTimes:
        """Train a new classifier for two epochs, or for the one that there is. Raises what `fine_tune` raises.

        Without a `clock`, times are of the CPU where it does the work, which other work on the machine does not
        stretch, and of the wall on a GPU.
        """
        clock = clock or (time.process_time if self.settings.device == "cpu" else time.perf_counter)
        classifier = self.new_classifier()
        # A companion is run through the frozen stages as far as all epochs together will draw from it.
        epochs = max(2, self.hyperparameters.epochs)
        recipe = self.hyperparameters.model_copy(update={**_IN_PLACE_OF_EARLY_STOPS, "epochs": epochs})
        started = clock()
        training = Training(
            classifier, self.spec, self.train, self.validation, recipe, self.settings, None, None, self.companion
        )
        training.run_epoch()
        first_ended = clock()
        if training.is_over:
            return EpochTimes(first_s=first_ended - started, later_s=0.0)
        training.run_epoch()
        return EpochTimes(first_s=first_ended - started, later_s=clock() - first_ended)


def rehearse_in_turn(
    one: Callable[[], EpochTimes],
    other: Callable[[], EpochTimes],
    *,
    least_s: float = _LEAST_SECONDS,
    on_round: Callable[[], None] = lambda: None,
) -> tuple[EpochTimes, EpochTimes]:
    """Measure two trainings in turn, the first of a turn being the second of the next one, and give their medians.

    What else the machine does in the meantime then slows down both alike. There are at least three turns, and as many
    as it takes until each training was measured for `least_s` seconds, but at most 15.
    """
    found: tuple[list[EpochTimes], list[EpochTimes]] = ([], [])
    for turn in range(_MOST_ROUNDS):
        for place in (0, 1) if turn % 2 == 0 else (1, 0):
            found[place].append((one, other)[place]())
        on_round()
        if turn + 1 >= _LEAST_ROUNDS and min(sum(times.total_s for times in side) for side in found) >= least_s:
            break
    return _medians(found[0]), _medians(found[1])


def relative_cost(one: EpochTimes, other: EpochTimes, *, epochs: int) -> float:
    """Give what a later epoch of one training takes over an average one of another that has `epochs` epochs.

    What the other does before its first epoch is shared out over all of them, but for what the one spends there too:
    on the part of the samples that is tried, that is the start of any training.
    """
    start_s = one.first_s - one.later_s
    before_s = max(0.0, other.first_s - other.later_s - start_s)
    # A training of one pass has no later epoch, and its pass may be shorter than the start of the one.
    average_s = other.later_s + before_s / epochs or other.first_s / epochs
    return one.later_s / average_s


def spread(samples: Samples, count: int) -> Samples:
    """Choose evenly spread samples, at least one: neighbours may be of one class."""
    count = max(1, min(count, len(samples)))
    return ChosenSamples(samples=samples, positions=np.arange(count, dtype=np.int64) * len(samples) // count)


def scaled_companion(companion: Companion, share: float, *, is_streamed: bool = False) -> Companion:
    """Keep a share of a companion's samples, so that as large a part of them is drawn beside that share of a target.

    Where it `is_streamed` they come from a stream, as a training gets them that holds none of them.
    """
    samples = spread(companion.samples, round(share * len(companion.samples)))
    stream = EndlessSamples(samples=samples) if is_streamed else None
    return replace(companion, samples=samples, stream=stream)


@dataclass(frozen=True, kw_only=True)
class SampleStream:
    """Give samples in order, batch by batch, as a training gets them that holds none of them."""

    samples: Samples
    batch_size: int

    @property
    def num_samples(self) -> int:
        """Count the samples of an epoch."""
        return len(self.samples)

    @property
    def no_labels(self) -> Labels:
        """Give the labels of no sample."""
        return self.samples.labels[:0]

    def count_labels(self) -> LabelCounts:
        """Count the labels of an epoch."""
        return LabelCounts.of(self.samples.labels)

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        """Iterate over pixels [n, S, S, 3] and labels; every epoch is alike, and no batch a small rest."""
        everyone = np.arange(len(self.samples), dtype=np.int64)
        for positions in np.array_split(everyone, max(1, len(everyone) // self.batch_size)):
            yield self.samples.take(positions), self.samples.labels[positions]


@dataclass(frozen=True, kw_only=True)
class EndlessSamples:
    """Give samples in order, again and again, as a stream of a source does; for one process."""

    samples: Samples

    def count_labels(self) -> LabelCounts:
        """Count the labels of a pass."""
        return LabelCounts.of(self.samples.labels)

    def draws(self, first: int) -> Generator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Give pixels [n, S, S, 3] and labels in pieces, from draw number `first` on, without end."""
        for start in count(first, _PIECE_ROWS):
            positions = np.arange(start, start + _PIECE_ROWS, dtype=np.int64) % len(self.samples)
            yield self.samples.take(positions), class_indices(self.samples.labels[positions])


def _medians(times: list[EpochTimes]) -> EpochTimes:
    return EpochTimes(
        first_s=median(found.first_s for found in times), later_s=median(found.later_s for found in times)
    )
