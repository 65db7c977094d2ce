"""The profile of every subset, made from partial profiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from orchestrator.diversity.entropy import effective_number, normalized_entropy, shannon_entropy
from orchestrator.diversity.features import SAMPLE_SIZE
from orchestrator.diversity.statistics import PartialProfile, SubsetStatistics, merge_partials
from orchestrator.diversity.vendi import rarefied_vendi, vendi_score
from orchestrator.errors import DataError
from orchestrator.records import Profile, SubsetProfile


def finish(
    partials: Iterable[PartialProfile],
    *,
    num_labels: int,
    measures: Sequence[str],
    split: Literal["train", "all"],
    min_images: int,
    seed: int,
) -> Profile:
    """Merge partial profiles, in whatever order they arrive, and measure every subset.

    `num_labels` is the size of the whole label space. Measures of labels are always there, the others where
    `measures` name them. Feature diversity is compared at the size of the smallest subset with `min_images`
    images or more (of all subsets, where none has), at most 512. Raises DataError when a measure does not
    cover all images of a subset.
    """
    merged = merge_partials(partials)
    _check_coverage(merged, measures)
    rarefied_to = None
    if "feature_diversity" in measures:
        rarefied_to = rarefaction_size([part.num_images for part in merged.values()], min_images)
    return Profile(
        split=split,
        rarefied_to=rarefied_to,
        subsets=[
            _measure(subset, statistics, num_labels, "pixel_entropy" in measures, rarefied_to, seed)
            for subset, statistics in merged.items()
        ],
    )


def rarefaction_size(sizes: Sequence[int], min_images: int) -> int | None:
    """Give the number of images at which subsets of these sizes are compared; None without subsets.

    The size of the smallest that has `min_images`, of the smallest at all where none has; at most 512, the
    number of images of which every subset keeps the features.
    """
    if not sizes:
        return None
    large = [size for size in sizes if size >= min_images]
    return min(min(large or sizes), SAMPLE_SIZE)


def _measure(
    subset: str,
    statistics: SubsetStatistics,
    num_labels: int,
    with_pixels: bool,
    rarefied_to: int | None,
    seed: int,
) -> SubsetProfile:
    label_counts = dict(sorted(statistics.label_counts.items()))
    counts = list(label_counts.values())
    entropy = shannon_entropy(counts)
    pixel_entropy = feature_diversity = raw_feature_diversity = None
    if with_pixels:
        pixel_entropy = statistics.pixel_entropy_sum / statistics.num_histograms
    if rarefied_to is not None:
        raw_feature_diversity = vendi_score(statistics.features.similarity_matrix())
        feature_diversity = rarefied_vendi(statistics.features.sample(), rarefied_to, seed=_subset_seed(seed, subset))
    return SubsetProfile(
        subset=subset,
        num_images=statistics.num_images,
        num_classes=len(counts),
        label_counts=label_counts,
        label_entropy=entropy,
        normalized_label_entropy=normalized_entropy(counts, num_labels),
        effective_classes=effective_number(entropy),
        pixel_entropy=pixel_entropy,
        feature_diversity=feature_diversity,
        raw_feature_diversity=raw_feature_diversity,
    )


def _subset_seed(seed: int, subset: str) -> int:
    """Derive a seed that does not change when other subsets come or go."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {subset}".encode(), digest_size=8).digest(), "big")


def _check_coverage(merged: Mapping[str, SubsetStatistics], measures: Sequence[str]) -> None:
    for subset, statistics in merged.items():
        measured = {
            "pixel_entropy": statistics.num_histograms,
            "feature_diversity": statistics.features.num_images,
        }
        for measure, num_images in measured.items():
            if measure in measures and (num_images != statistics.num_images or num_images == 0):
                raise DataError(
                    f"{measure} of subset {subset} must cover its {statistics.num_images} images",
                    value=num_images,
                )
