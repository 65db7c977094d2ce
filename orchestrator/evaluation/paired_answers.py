"""What a model and others got right on the same images: it merges, and takes no more memory for more images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.errors import DataError
from orchestrator.evaluation.intervals import mean_interval
from orchestrator.evaluation.parts import PART_ROWS
from orchestrator.evaluation.scoring import MOST_RANKED_IMAGES
from orchestrator.evaluation.unit_buckets import buckets_of_keys, unit_keys

Correct = NDArray[np.bool_]
Counts = NDArray[np.int64]
Names: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray
Scalar = TypeVar("Scalar", bound=np.generic)
PairedGain = tuple[float, tuple[float, float]]
_CODE_BITS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedAnswers:
    """Hold how often a model and R others were right together, on any number of images.

    Those of parts add up to those of the whole, however it was cut and in whatever order they are added.

    - Images that are alone are counted by the answers to them: `alone` [D, 1 + R] are the different ones, the model's
      first, and `counts` [D] say how many images have each. There are at most 2^(1 + R), and intervals are exact.
    - Images with kin are summed up: `kin` [U, 2 + R] counts those that the model and the others got right, and all of
      them. `keys` [U] tell kin apart by a stable hash of 64 bits of the name that they share. From 100,001 images on
      they are the buckets of `UnitBuckets`, 4,096 at most, and a bootstrap draws these.

    To 100,000 images every number is that of `paired_gain`.
    """

    others: tuple[str, ...]
    alone: Correct
    counts: Counts
    keys: NDArray[np.uint64]
    kin: NDArray[np.int32]

    @classmethod
    def of(cls, correct: Correct, others: Mapping[str, Correct], together: Names) -> Self:
        """Add up what a model and others, by name, got right [n] on the same images.

        `together` [n] says what each image shares with its kin, empty where it has none. Raises DataError when the
        lengths differ.
        """
        models = [correct, *others.values()]
        lengths = [len(together), *(len(model) for model in models)]
        if len(set(lengths)) > 1:
            raise DataError("models must be compared on the same images", value=lengths)
        starts = range(0, max(1, len(correct)), PART_ROWS)
        parts = (
            cls._of_chunk(
                tuple(others),
                np.stack([model[start : start + PART_ROWS] for model in models], axis=1),
                _strings(together[start : start + PART_ROWS]),
            )
            for start in starts
        )
        return reduce(add, parts)

    @classmethod
    def _of_chunk(cls, others: tuple[str, ...], answers: Correct, together: pa.Array) -> Self:
        is_alone = np.asarray(pc.equal(together, ""))
        kin = together.filter(pa.array(~is_alone)).dictionary_encode()
        keys, codes, of_kin = unit_keys(kin.dictionary.to_pylist()), np.asarray(kin.indices), answers[~is_alone]
        columns = [*of_kin.T, np.ones(len(of_kin), dtype=np.bool_)]
        sums = np.stack([np.bincount(codes, column, minlength=len(keys)) for column in columns], axis=1)
        return cls._put_together(others, *_different(answers[is_alone]), keys, sums.astype(np.int32))

    @classmethod
    def _put_together(
        cls,
        others: tuple[str, ...],
        alone: Correct,
        counts: Counts,
        keys: NDArray[np.uint64],
        kin: NDArray[np.int32],
    ) -> Self:
        if counts.sum() + kin[:, -1].sum() > MOST_RANKED_IMAGES:
            keys = buckets_of_keys(keys)
        keys, places = np.unique(keys, return_inverse=True)
        sums = np.zeros((len(keys), kin.shape[1]), dtype=np.int32)
        np.add.at(sums, places, kin)
        alone, counts = counted_rows(alone, counts)
        return cls(others=others, alone=alone, counts=counts, keys=keys, kin=sums)

    def __add__(self, other: Self) -> Self:
        """Add the images of both; neither changes. Raises DataError when they compare with others than these."""
        if self.others != other.others:
            raise DataError(f"answers of {self.others} add up with their like alone", value=other.others)
        return self._put_together(
            self.others,
            *(
                np.concatenate([getattr(self, part), getattr(other, part)])
                for part in ("alone", "counts", "keys", "kin")
            ),
        )

    def over(self, others: Sequence[str]) -> Self:
        """Give the same with some of the others alone."""
        columns = [0, *(self._place(name) for name in others)]
        return self._put_together(
            tuple(others), self.alone[:, columns], self.counts, self.keys, self.kin[:, [*columns, -1]]
        )

    @property
    def num_images(self) -> int:
        """Count the images."""
        return int(self.counts.sum() + self.kin[:, -1].sum())

    @property
    def accuracy(self) -> float:
        """Give the accuracy of the model; there must be images."""
        return self._mean(0)

    def accuracy_of(self, other: str) -> float:
        """Give the accuracy of another model; there must be images."""
        return self._mean(self._place(other))

    def accuracy_interval(self, other: str, samples: int, seed: int) -> tuple[float, float]:
        """Bound the accuracy of another model; there must be images."""
        rows, counts = self.sums()
        return _interval(rows[:, self._place(other)], rows[:, -1], counts, samples, seed)

    def gain_over(self, other: str, samples: int, seed: int) -> PairedGain:
        """Give how much more accurate the model is than another, image by image, with the interval of that gain.

        Raises DataError without images.
        """
        if not self.num_images:
            raise DataError("models must be compared on one or more images", value=0)
        rows, counts = self.sums()
        gains = rows[:, 0] - rows[:, self._place(other)]
        return int(gains @ counts) / self.num_images, _interval(gains, rows[:, -1], counts, samples, seed)

    def sums(self) -> tuple[Counts, Counts]:
        """Give the different sums [D, 2 + R] of what a bootstrap draws as one, and how many [D] have each.

        A row counts the images that the model and the others got right, and all of them.
        """
        alone = np.concatenate([self.alone.astype(np.int64), np.ones((len(self.alone), 1), dtype=np.int64)], axis=1)
        once = np.ones(len(self.kin), dtype=np.int64)
        return counted_rows(np.concatenate([alone, self.kin]), np.concatenate([self.counts, once]))

    def _mean(self, place: int) -> float:
        right = self.counts[self.alone[:, place]].sum() + self.kin[:, place].sum()
        return int(right) / self.num_images

    def _place(self, other: str) -> int:
        return 1 + self.others.index(other)


def add_up(parts: Iterable[PairedAnswers]) -> PairedAnswers:
    """Add up answers, of which there is at least one part."""
    return reduce(add, parts)


def add_up_by_name(parts: Iterable[tuple[str, PairedAnswers]]) -> dict[str, PairedAnswers]:
    """Add up the answers that have the same name."""
    found: dict[str, PairedAnswers] = {}
    for name, answers in parts:
        found[name] = found[name] + answers if name in found else answers
    return found


def count_units(together: Names) -> int:
    """Count what a bootstrap draws as one: an image, or images that share what `together` [n] says."""
    names = _strings(together)
    kin = names.filter(pc.not_equal(names, ""))
    return len(names) - len(kin) + int(pc.count_distinct(kin).as_py())


def counted_rows(rows: NDArray[Scalar], counts: Counts) -> tuple[NDArray[Scalar], Counts]:
    """Give the different rows of [D, S], ascending, and the sum of the counts [D] of those that are equal."""
    found, places = np.unique(rows, axis=0, return_inverse=True)
    totals = np.zeros(len(found), dtype=np.int64)
    np.add.at(totals, places, counts)
    return found, totals


def _different(answers: Correct) -> tuple[Correct, Counts]:
    """Give the different rows of answers [n, M], and how many images have each."""
    codes = np.zeros(len(answers), dtype=np.int64)
    for place, column in enumerate(answers.T, start=1):
        codes = 2 * codes + column
        if place % _CODE_BITS == 0:
            # Numbered anew, codes stay small however many models there are.
            codes = np.unique(codes, return_inverse=True)[1]
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return answers[first], counts


def _strings(names: Names) -> pa.Array:
    if isinstance(names, pa.ChunkedArray):
        return names.combine_chunks()
    return names if isinstance(names, pa.Array) else pa.array(names, pa.string())


def _interval(sums: Counts, sizes: Counts, counts: Counts, samples: int, seed: int) -> tuple[float, float]:
    rows, counts = counted_rows(np.stack([sums, sizes], axis=1), counts)
    return mean_interval(rows.astype(np.float64), counts, samples, seed)
