"""Statistics of subsets that parallel tasks take from their share of the images, and their exact merging."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.diversity.entropy import histogram_entropy
from orchestrator.diversity.features import FeatureMoments, hash_ids
from orchestrator.errors import DataError


class SubsetStatistics:
    """Sum up some images of one subset.

    `label_counts` count labels; `pixel_entropy_sum` adds the histogram entropies in nats of
    `num_histograms` images; `features` hold the moments of their features.
    """

    def __init__(self) -> None:
        """Start without images."""
        self.label_counts: Counter[str] = Counter()
        self.num_histograms = 0
        self.pixel_entropy_sum = 0.0
        self.features = FeatureMoments()

    @property
    def num_images(self) -> int:
        """Count the labelled images."""
        return self.label_counts.total()

    def merge(self, other: SubsetStatistics) -> None:
        """Add the images of another summary, which stays as it is."""
        self.label_counts.update(other.label_counts)
        self.num_histograms += other.num_histograms
        self.pixel_entropy_sum += other.pixel_entropy_sum
        self.features.merge(other.features)


class PartialProfile:
    """Hold what one task measured, per subset; `key` is its place among the tasks, from 0."""

    def __init__(self, *, key: int) -> None:
        """Start without images."""
        self.key = key
        self.subsets: dict[str, SubsetStatistics] = {}

    def add_labels(self, subset: str, labels: Sequence[str]) -> None:
        """Count the labels of images, one for each image."""
        self._of(subset).label_counts.update(labels)

    def add_histograms(self, subset: str, histograms: NDArray[np.int64]) -> None:
        """Add luminance histograms [n, 256] of images."""
        statistics = self._of(subset)
        statistics.num_histograms += len(histograms)
        statistics.pixel_entropy_sum += math.fsum(histogram_entropy(histograms))

    def add_features(self, subset: str, features: NDArray[np.floating], ids: Sequence[str]) -> None:
        """Add features [n, d] of images with their identities, which decide what a random sample holds.

        Lengths do not matter, and zero vectors count as equal to each other and unlike the rest. Raises DataError
        when the shapes do not fit.
        """
        self._of(subset).features.add(features, hash_ids(ids))

    def _of(self, subset: str) -> SubsetStatistics:
        return self.subsets.setdefault(subset, SubsetStatistics())


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
        merged.setdefault(subset, SubsetStatistics()).merge(statistics)
