"""Mergeable statistics of features: the exact sums of their directions and a random sample of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import MOST_EXACT_DIMENSIONS, SKETCH_SIZE
from orchestrator.diversity.feature_sums import DirectionSums, FeatureSums
from orchestrator.diversity.sketch import SketchedSums
from orchestrator.diversity.vendi import on_own_axes, similarity_matrix, unit_directions, vendi_score
from orchestrator.errors import DataError

SAMPLE_SIZE = 512


def held_bytes(
    sizes: NDArray[np.number],
    num_classes: NDArray[np.number],
    dimensions: int,
    sketch_above: int = MOST_EXACT_DIMENSIONS,
) -> NDArray[np.float64]:
    """Give the most bytes [s] that the moments of subsets of these sizes [s] and classes [s] come to hold.

    Rows of float32 while there are few; beyond, the sums or their sketch in float64, the rows of the sample, and those
    that wait to be summed up.
    """
    row_bytes, most_rows = 4 * dimensions, max(dimensions + 1, SAMPLE_SIZE)
    summed_rows = dimensions + 1 if dimensions <= sketch_above else SKETCH_SIZE
    summed = 8.0 * (dimensions + 1) * (summed_rows + num_classes) + row_bytes * 2 * SAMPLE_SIZE
    held: NDArray[np.float64] = np.where(sizes > most_rows, summed, row_bytes * sizes)
    return held


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Hash identities to uint64 [n], the same everywhere: the lowest hashes are a random sample of the ids."""
    digests = b"".join(
        hashlib.blake2b(identity.encode(), digest_size=8, person=b"features").digest() for identity in ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


class FeatureMoments:
    """Sum up the features of any number of images in bounded memory.

    Rows [n, d] and their labels are kept as they came while there are few; beyond max(d + 1, `sample_size`) they become
    float64 sums over their directions, of (d + 1) x (d + 1) and a row for each class, and only the `sample_size` rows
    with the smallest hashes stay. Rows that come later wait until they are more than `sample_size`: few rows cost as
    much to add as many. Which rows stay depends neither on the sharding nor on the order of merging. Where d is more
    than `sketch_above`, a sketch takes the place of the (d + 1) x (d + 1) sum.
    """

    def __init__(self, sample_size: int = SAMPLE_SIZE, sketch_above: int = MOST_EXACT_DIMENSIONS) -> None:
        """Start without images."""
        self.num_images = 0
        self._sample_size = sample_size
        self._sketch_above = sketch_above
        self._rows: NDArray[np.floating] = np.zeros((0, 0), dtype=np.float32)
        self._hashes: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self._labels: list[str] = []
        self._is_summed: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._sums: FeatureSums | SketchedSums | None = None

    def add(self, features: NDArray[np.floating], hashes: NDArray[np.uint64], labels: Sequence[str]) -> None:
        """Add features [n, d] with the hashes [n] of their images' identities, and the images' labels [n].

        Raises DataError when the shapes do not fit each other, a feature is not finite, or d is not that of
        earlier features.
        """
        of_shape = features.ndim == 2 and features.shape[1] > 0
        if not of_shape or hashes.shape != features.shape[:1] or len(labels) != len(features):
            raise DataError(
                "features must have a row of one or more numbers for each image",
                value=f"features of shape {features.shape}, {len(hashes)} images, {len(labels)} labels",
            )
        if not np.isfinite(features).all():
            raise DataError("features must be finite", remedy="Check the backbone's weights for NaN.")
        part = FeatureMoments(self._sample_size, self._sketch_above)
        part.num_images = len(features)
        part._rows, part._hashes, part._labels = features.copy(), hashes.copy(), list(labels)
        part._is_summed = np.zeros(len(features), dtype=np.bool_)
        part._condense()
        self.merge(part)

    def merge(self, other: FeatureMoments) -> None:
        """Add the images of another summary, which stays as it is. Raises DataError when d differs."""
        if other.num_images == 0:
            return
        if self.num_images == 0:
            self.num_images, self._rows = other.num_images, other._rows
            self._hashes, self._labels, self._sums = other._hashes, other._labels, other._sums
            self._is_summed = other._is_summed
            self._condense()
            return
        if self._rows.shape[1] != other._rows.shape[1]:
            raise DataError(f"features must have {self._rows.shape[1]} dimensions", value=other._rows.shape[1])
        if self._sums is None or other._sums is None:
            self._sums = self._sums or other._sums
        else:
            self._sums = _added(self._sums, other._sums)
        self.num_images += other.num_images
        self._rows = np.concatenate([self._rows, other._rows])
        self._hashes = np.concatenate([self._hashes, other._hashes])
        self._labels = [*self._labels, *other._labels]
        self._is_summed = np.concatenate([self._is_summed, other._is_summed])
        self._condense()

    def vendi_bounds(self) -> tuple[float, float]:
        """Give the bounds of the Vendi score of all images: the score twice, but for a sketch.

        Raises DataError without images.
        """
        sums = self._settled()
        if isinstance(sums, SketchedSums):
            return sums.vendi_bounds()
        score = vendi_score(self.similarity_matrix())
        return score, score

    def similarity_matrix(self) -> NDArray[np.float64]:
        """Give the matrix of trace 1 whose eigenvalues make the Vendi score.

        Raises DataError without images, or when a sketch is all there is.
        """
        if (sums := self._settled()) is not None:
            return _exact(sums).outer / self.num_images
        return similarity_matrix(self._sorted_directions())

    def sums(self) -> FeatureSums:
        """Give the sums over the directions of all images.

        Raises DataError without images, or when a sketch is all there is.
        """
        if (sums := self._settled()) is not None:
            return _exact(sums)
        return FeatureSums.of(self._sorted_directions(), self._sorted_labels())

    def class_sums(self) -> DirectionSums:
        """Give each class's images and sum [d + 1] of directions, exact for a sketch too.

        Raises DataError without images.
        """
        if (sums := self._settled()) is not None:
            return DirectionSums(counts=sums.counts, sums=sums.sums)
        return DirectionSums.of(self._sorted_directions(), self._sorted_labels())

    def sums_on_own_axes(self) -> FeatureSums:
        """Give sums that say as much of this subset alone, with no more dimensions than images where rows are kept.

        Of a sketch they say what its axes hold. Raises DataError without images.
        """
        sums = self._settled()
        if isinstance(sums, SketchedSums):
            return sums.on_own_axes()
        return sums or FeatureSums.of(on_own_axes(self._sorted_directions()), self._sorted_labels())

    def sample(self) -> NDArray[np.float64]:
        """Give the directions [at most `sample_size`, d + 1] of a random sample, in order of their hashes.

        Raises DataError without images.
        """
        return self._sorted_directions()[: self._sample_size]

    def _sorted_directions(self) -> NDArray[np.float64]:
        if self.num_images == 0:
            raise DataError("the moments of features need at least one image")
        return unit_directions(self._rows[_order(self._rows, self._hashes)])

    def _sorted_labels(self) -> list[str]:
        return [self._labels[row] for row in _order(self._rows, self._hashes)]

    def _settled(self) -> FeatureSums | SketchedSums | None:
        """Give the sums of all images, those that waited too; None while there are rows alone."""
        if self._sums is not None and not self._is_summed.all():
            self._sum_up()
        return self._sums

    def _condense(self) -> None:
        """Sum up the rows that wait once they are too many to keep."""
        most = self._sample_size
        if self._sums is None:
            most = max(self._rows.shape[1] + 1, most)
        if np.count_nonzero(~self._is_summed) > most:
            self._sum_up()
        elif np.count_nonzero(self._is_summed) > self._sample_size:
            self._drop_summed()

    def _sum_up(self) -> None:
        waiting = np.flatnonzero(~self._is_summed)
        kind = FeatureSums if self._rows.shape[1] <= self._sketch_above else SketchedSums
        sums = kind.of(unit_directions(self._rows[waiting]), [self._labels[row] for row in waiting])
        self._sums = sums if self._sums is None else _added(self._sums, sums)
        self._is_summed = np.ones(len(self._rows), dtype=np.bool_)
        self._drop_summed()

    def _drop_summed(self) -> None:
        """Keep of the rows only the sample and those that wait."""
        order = _order(self._rows, self._hashes)
        is_kept = ~self._is_summed
        is_kept[order[: self._sample_size]] = True
        kept = order[is_kept[order]]
        self._rows, self._hashes, self._is_summed = self._rows[kept], self._hashes[kept], self._is_summed[kept]
        self._labels = [self._labels[row] for row in kept]


def _added(one: FeatureSums | SketchedSums, other: FeatureSums | SketchedSums) -> FeatureSums | SketchedSums:
    # The number of dimensions decides which kind both are.
    if isinstance(one, SketchedSums) and isinstance(other, SketchedSums):
        return one + other
    return _exact(one) + _exact(other)


def _exact(sums: FeatureSums | SketchedSums) -> FeatureSums:
    if isinstance(sums, SketchedSums):
        raise DataError(
            "features must have at most diversity.sketch_above dimensions to be summed up exactly",
            value=sums.rows.shape[1] - 1,
            remedy="Raise it, or use a backbone of fewer features.",
        )
    return sums


def _order(rows: NDArray[np.floating], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sort by hash, and images that share an identity by the bytes of their features."""
    row_bytes = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
    order: NDArray[np.int64] = np.lexsort((row_bytes[:, 0], hashes))
    return order
