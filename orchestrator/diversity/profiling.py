"""The profile of every subset, made from partial profiles."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.config import EntropyEstimator
from orchestrator.diversity.entropy import effective_number, normalized_entropy
from orchestrator.diversity.estimators import (
    NORMAL_95,
    entropy_interval,
    estimate_entropy,
    imbalance_ratio,
)
from orchestrator.diversity.features import SAMPLE_SIZE
from orchestrator.diversity.statistics import PartialProfile, SubsetStatistics, merge_partials
from orchestrator.diversity.transferability import fisher_ratio, h_score, log_evidence
from orchestrator.diversity.vendi import on_own_axes, rarefied_interval, rarefied_scores
from orchestrator.errors import DataError
from orchestrator.records import Profile, SubsetProfile

_ORDERS = {"1": 1.0, "2": 2.0, "inf": math.inf}


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """Say what is measured of merged statistics.

    `num_labels` is the size of the whole label space. Measures of labels are always taken, the others where
    `measures` name them. Feature diversity is compared at `rarefied_to` images; without it, at the size of the smallest
    subset with `min_images` images or more (of all subsets, where none has), at most 512.
    """

    num_labels: int
    measures: Sequence[str]
    split: Literal["train", "all"]
    min_images: int
    seed: int
    entropy_estimator: EntropyEstimator = "plug_in"
    rarefied_to: int | None = None


def finish(partials: Iterable[PartialProfile], settings: ProfileSettings) -> Profile:
    """Merge partial profiles, in whatever order they arrive, and measure every subset.

    Raises DataError when a measure does not cover all images of a subset.
    """
    merged = merge_partials(partials)
    _check_coverage(merged, settings.measures)
    rarefied_to = None
    if "feature_diversity" in settings.measures:
        sizes = [part.num_images for part in merged.values()]
        rarefied_to = settings.rarefied_to or rarefaction_size(sizes, settings.min_images)
    return Profile(
        split=settings.split,
        rarefied_to=rarefied_to,
        subsets=[_measure(subset, statistics, settings, rarefied_to) for subset, statistics in merged.items()],
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
    subset: str, statistics: SubsetStatistics, settings: ProfileSettings, rarefied_to: int | None
) -> SubsetProfile:
    label_counts = dict(sorted(statistics.label_counts.items()))
    counts = list(label_counts.values())
    entropy = estimate_entropy(counts, settings.entropy_estimator)
    return SubsetProfile(
        subset=subset,
        num_images=statistics.num_images,
        num_classes=len(counts),
        label_counts=label_counts,
        label_entropy=entropy,
        label_entropy_interval=entropy_interval(counts, settings.entropy_estimator, num_classes=settings.num_labels),
        normalized_label_entropy=normalized_entropy(counts, settings.num_labels, entropy),
        effective_classes=effective_number(entropy),
        imbalance_ratio=imbalance_ratio(counts),
        **(_pixel_measures(statistics) if "pixel_entropy" in settings.measures else {}),
        **({} if rarefied_to is None else _feature_measures(subset, statistics, settings, rarefied_to)),
    )


def _pixel_measures(statistics: SubsetStatistics) -> dict[str, Any]:
    num_images = statistics.num_histograms
    mean = statistics.pixel_entropy_sum / num_images
    variance = max(0.0, statistics.pixel_entropy_squares / num_images - mean**2) / max(1, num_images - 1)
    reach = NORMAL_95 * math.sqrt(variance)
    return {"pixel_entropy": mean, "pixel_entropy_interval": (max(0.0, mean - reach), mean + reach)}


def _feature_measures(
    subset: str, statistics: SubsetStatistics, settings: ProfileSettings, rarefied_to: int
) -> dict[str, Any]:
    # A hundred resamples follow, of whose products every coordinate is a part.
    sample, seed = on_own_axes(statistics.features.sample()), _subset_seed(settings.seed, subset)
    rarefied = dict(zip(_ORDERS, rarefied_scores(sample, rarefied_to, list(_ORDERS.values()), seed=seed), strict=True))
    score = rarefied.pop("1")
    sums = statistics.features.sums_on_own_axes()
    ratio = fisher_ratio(sums)
    low, high = statistics.features.vendi_bounds()
    return {
        "feature_diversity": score,
        "feature_diversity_interval": rarefied_interval(sample, rarefied_to, score, seed=seed),
        "feature_diversity_by_order": rarefied,
        "raw_feature_diversity": math.sqrt(low * high),
        "raw_feature_diversity_bounds": None if low == high else (low, high),
        "h_score": h_score(sums),
        "log_evidence": log_evidence(sums),
        "fisher_ratio": ratio if math.isfinite(ratio) else None,
    }


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
