"""Statistics of subsets that parallel tasks take from the images they open, and their exact merging."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.config import MOST_EXACT_DIMENSIONS
from orchestrator.diversity.entropy import histogram_entropy
from orchestrator.diversity.features import FeatureMoments, hash_ids
from orchestrator.errors import DataError


class SubsetStatistics:
    """Sum up some images of one subset.

    `pixel_entropy_sum` adds the histogram entropies in nats of `num_histograms` images, `pixel_entropy_squares` their
    squares; `features` hold the moments of their features.
    """

    def __init__(self, sketch_above: int = MOST_EXACT_DIMENSIONS) -> None:
        """Start without images; features of more than `sketch_above` dimensions are sketched."""
        self.num_histograms = 0
        self.pixel_entropy_sum = 0.0
        self.pixel_entropy_squares = 0.0
        self.features = FeatureMoments(sketch_above=sketch_above)

    def merge(self, other: SubsetStatistics) -> None:
        """Add the images of another summary, which stays as it is."""
        self.num_histograms += other.num_histograms
        self.pixel_entropy_sum += other.pixel_entropy_sum
        self.pixel_entropy_squares += other.pixel_entropy_squares
        self.features.merge(other.features)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageMeasures:
    """Hold what was measured of the n images of a block by opening them; None where it was not asked for.

    `pixel_entropies` are float64 [n] in nats, `features` float32 [n, d]. Neither depends on labels, subsets or
    identities: those may change without an image being opened again.
    """

    pixel_entropies: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None

    def to_bytes(self) -> bytes:
        """Write the arrays as .npz, without pickle."""
        arrays = {"pixel_entropies": self.pixel_entropies, "features": self.features}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{name: array for name, array in arrays.items() if array is not None})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> ImageMeasures:
        """Read what `to_bytes` wrote."""
        with storage.ONE_NPY_HEADER, np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(pixel_entropies=arrays.get("pixel_entropies"), features=arrays.get("features"))


class PartialProfile:
    """Hold what one task measured, per subset; `key` is its place among the tasks, from 0."""

    def __init__(self, *, key: int, sketch_above: int = MOST_EXACT_DIMENSIONS) -> None:
        """Start without images; features of more than `sketch_above` dimensions are sketched."""
        self.key = key
        self.sketch_above = sketch_above
        self.subsets: dict[str, SubsetStatistics] = {}

    @classmethod
    def of_block(
        cls,
        *,
        key: int,
        subsets: Sequence[str],
        labels: Sequence[str],
        ids: Sequence[str],
        images: ImageMeasures,
        sketch_above: int = MOST_EXACT_DIMENSIONS,
    ) -> PartialProfile:
        """Sum up a block of images, each with its subset, label and identity, and what opening them gave."""
        partial = cls(key=key, sketch_above=sketch_above)
        names, subset_of = np.unique(np.asarray(subsets, dtype=str), return_inverse=True)
        borders = np.cumsum(np.bincount(subset_of, minlength=len(names)))[:-1]
        for subset, members in zip(
            names.tolist(), np.split(np.argsort(subset_of, kind="stable"), borders), strict=True
        ):
            if images.pixel_entropies is not None:
                partial.add_pixel_entropies(subset, images.pixel_entropies[members])
            if images.features is not None:
                partial.add_features(
                    subset,
                    images.features[members],
                    [ids[index] for index in members.tolist()],
                    [labels[index] for index in members.tolist()],
                )
        return partial

    def merge(self, other: PartialProfile) -> None:
        """Add the images of another task's, which stays as it is."""
        _merge_into(self.subsets, other)

    def add_histograms(self, subset: str, histograms: NDArray[np.int64]) -> None:
        """Add luminance histograms [n, 256] of images."""
        self.add_pixel_entropies(subset, histogram_entropy(histograms))

    def add_pixel_entropies(self, subset: str, entropies: NDArray[np.float64]) -> None:
        """Add the histogram entropies [n] in nats of images."""
        statistics = self._of(subset)
        statistics.num_histograms += len(entropies)
        statistics.pixel_entropy_sum += math.fsum(entropies)
        statistics.pixel_entropy_squares += math.fsum(entropies**2)

    def add_features(
        self, subset: str, features: NDArray[np.floating], ids: Sequence[str], labels: Sequence[str]
    ) -> None:
        """Add features [n, d] of images with their identities, which decide what a random sample holds, and labels.

        Lengths do not matter, and zero vectors count as equal to each other and unlike the rest. Raises DataError
        when the shapes do not fit.
        """
        self._of(subset).features.add(features, hash_ids(ids), labels)

    def _of(self, subset: str) -> SubsetStatistics:
        return self.subsets.setdefault(subset, SubsetStatistics(self.sketch_above))


def merge_partials(partials: Iterable[PartialProfile]) -> dict[str, SubsetStatistics]:
    """Merge partial profiles in ascending order of their keys: the same bits in whatever order they arrive.

    A partial profile whose predecessors are all merged is merged at once and let go, so that an iterator over
    many needs little memory. Gives the statistics by subset, sorted by name. Raises DataError when two have
    the same key.
    """
    merged: dict[str, SubsetStatistics] = {}
    waiting: dict[int, PartialProfile] = {}
    following = 0
    for partial in partials:
        if partial.key in waiting or partial.key < following:
            raise DataError("partial profiles must have distinct keys from 0", value=partial.key)
        waiting[partial.key] = partial
        while following in waiting:
            _merge_into(merged, waiting.pop(following))
            following += 1
    for key in sorted(waiting):
        _merge_into(merged, waiting[key])
    return dict(sorted(merged.items()))


def _merge_into(merged: dict[str, SubsetStatistics], partial: PartialProfile) -> None:
    for subset, statistics in partial.subsets.items():
        merged.setdefault(subset, SubsetStatistics(partial.sketch_above)).merge(statistics)
