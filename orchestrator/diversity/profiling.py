"""The profile of every subset, made from counts of its labels and what its images add up to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from orchestrator.config import EntropyEstimator
from orchestrator.diversity.category_counts import COUNT, SUBSET
from orchestrator.diversity.entropy import effective_number, normalized_entropy
from orchestrator.diversity.estimators import (
    NORMAL_95,
    entropy_deviations,
    entropy_intervals,
    estimate_entropies,
    imbalance_ratios,
)
from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.features import SAMPLE_SIZE
from orchestrator.diversity.side_by_side import side_by_side
from orchestrator.diversity.statistics import SubsetStatistics
from orchestrator.diversity.subset_counts import SubsetCounts
from orchestrator.diversity.transferability import (
    fisher_ratio,
    h_score,
    log_evidence,
    separation,
    variance_between,
    variance_within,
)
from orchestrator.diversity.vendi import rarefied_deviation, rarefied_interval, rarefied_scores
from orchestrator.errors import DataError
from orchestrator.records import ClassPair, Profile, SubsetProfile

LABEL = "label"
_CLASS_MEANS = pa.schema(
    {SUBSET: pa.string(), LABEL: pa.string(), "num_images": pa.int64(), "mean": pa.list_(pa.float64())}
)
# What has more values is no attribute that images share, and its counts would outgrow the record.
_MOST_ATTRIBUTE_VALUES = 50
_ORDERS = {"1": 1.0, "2": 2.0, "inf": math.inf}


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """Say what is measured of merged statistics.

    `num_labels` is the size of the whole label space, `attributes` name what is counted beside labels. Measures of
    labels are always taken, the others where `measures` name them. Feature diversity is compared at `rarefied_to`
    images; without it, at the size of the smallest subset with `min_images` images or more (of all subsets, where none
    has), at most 512. With `multi_label` images have any number of labels: features are not measured by class.
    """

    num_labels: int
    measures: Sequence[str]
    split: Literal["train", "all"]
    min_images: int
    seed: int
    entropy_estimator: EntropyEstimator = "plug_in"
    rarefied_to: int | None = None
    attributes: Sequence[str] = ()
    multi_label: bool = False


def finish(
    labels: pa.Table,
    merged: Mapping[str, SubsetStatistics],
    settings: ProfileSettings,
    *,
    attributes: pa.Table | None = None,
    num_images: Mapping[str, int] | None = None,
) -> Profile:
    """Measure every subset: from the counts of its labels and attributes, and from what its images add up to.

    `labels` counts the column label, `attributes` a column for each of the settings', as `count_rows` does; `merged`
    has the statistics of images by subset, as `merge_partials` gives them, none where no measure opens images.
    `num_images` counts the images of each subset where that is not the number of its labels. Raises DataError when a
    measure does not cover all images of a subset, or more labels occur than the label space has.
    """
    counted = SubsetCounts.of(labels, [LABEL])
    _check_label_space(counted, settings.num_labels)
    sizes = [int(total) for total in counted.rows.totals]
    if num_images is not None:
        sizes = [num_images[subset] for subset in counted.subsets]
    _check_coverage(dict(zip(counted.subsets, sizes, strict=True)), merged, settings.measures)
    rarefied_to = None
    if "feature_diversity" in settings.measures:
        rarefied_to = settings.rarefied_to or rarefaction_size(sizes, settings.min_images)
    of_images = _image_measures(merged, settings, rarefied_to)
    of_attributes = {} if attributes is None else _attribute_measures(attributes, settings)
    return Profile(
        split=settings.split,
        rarefied_to=rarefied_to,
        subsets=[
            SubsetProfile(subset=subset, **_joined(of_labels, of_attributes.get(subset, {}), of_images.get(subset, {})))
            for subset, of_labels in zip(counted.subsets, _label_measures(counted, sizes, settings), strict=True)
        ],
    )


def class_means(merged: Mapping[str, SubsetStatistics]) -> pa.Table:
    """Give the mean unit features of every class of every subset, a row each, ordered by subset and label.

    Columns: subset, label, num_images, and mean: a list of d + 1 float64, the last of which is the share of images
    whose features are all zero and have no direction. Subsets without features have no rows.
    """
    measured = {subset: found.features for subset, found in merged.items() if found.features.num_images}
    sums_of = {subset: features.class_sums() for subset, features in measured.items()}
    rows = [
        {SUBSET: subset, LABEL: label, "num_images": sums.counts[label], "mean": mean.tolist()}
        for subset, sums in sums_of.items()
        for label, mean in zip(sums.classes, sums.class_means(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=_CLASS_MEANS)


def rarefaction_size(sizes: Sequence[int], min_images: int) -> int | None:
    """Give the number of images at which subsets of these sizes are compared; None without subsets.

    The size of the smallest that has `min_images`, of the smallest at all where none has; at most 512, the
    number of images of which every subset keeps the features.
    """
    if not sizes:
        return None
    large = [size for size in sizes if size >= min_images]
    return min(min(large or sizes), SAMPLE_SIZE)


def _label_measures(counted: SubsetCounts, sizes: Sequence[int], settings: ProfileSettings) -> Iterator[dict[str, Any]]:
    rows = counted.rows
    lows, highs = entropy_intervals(rows, settings.entropy_estimator, num_classes=settings.num_labels)
    for label_counts, num_images, entropy, low, high, deviation, ratio in zip(
        counted.by_subset(),
        sizes,
        estimate_entropies(rows, settings.entropy_estimator).tolist(),
        lows.tolist(),
        highs.tolist(),
        entropy_deviations(rows).tolist(),
        imbalance_ratios(rows).tolist(),
        strict=True,
    ):
        yield {
            "num_images": num_images,
            "num_classes": len(label_counts),
            "label_counts": label_counts,
            "label_entropy": entropy,
            "label_entropy_interval": (low, high),
            "normalized_label_entropy": normalized_entropy(entropy, settings.num_labels),
            "effective_classes": effective_number(entropy),
            "imbalance_ratio": ratio,
            "deviations": {"label_entropy": deviation},
        }


def _attribute_measures(attributes: pa.Table, settings: ProfileSettings) -> dict[str, dict[str, Any]]:
    """Give every subset's entropies of attributes, each alone and all together, and counts of those of few values."""
    columns = [name for name in attributes.column_names if name not in (SUBSET, COUNT)]
    joint = SubsetCounts.of(attributes, columns)
    counted = {
        name: SubsetCounts.of(attributes, [column]) for name, column in zip(settings.attributes, columns, strict=True)
    }
    alone = {
        name: estimate_entropies(found.rows, settings.entropy_estimator).tolist() for name, found in counted.items()
    }
    counts = {
        name: found.by_subset() for name, found in counted.items() if found.num_categories <= _MOST_ATTRIBUTE_VALUES
    }
    together = estimate_entropies(joint.rows, settings.entropy_estimator).tolist()
    return {
        subset: {
            "attribute_entropies": {name: entropies[index] for name, entropies in alone.items()},
            "attribute_counts": {name: by_subset[index] for name, by_subset in counts.items()},
            "joint_attribute_entropy": together[index],
        }
        for index, subset in enumerate(joint.subsets)
    }


def _image_measures(
    merged: Mapping[str, SubsetStatistics], settings: ProfileSettings, rarefied_to: int | None
) -> dict[str, dict[str, Any]]:
    """Measure subsets side by side where each needs a hundred eigenvalue problems."""

    def measure(subset: str) -> dict[str, Any]:
        return _joined(
            _pixel_measures(merged[subset]) if "pixel_entropy" in settings.measures else {},
            {} if rarefied_to is None else _feature_measures(subset, merged[subset], settings, rarefied_to),
        )

    if rarefied_to is None:
        return {subset: measure(subset) for subset in merged}
    return dict(zip(merged, side_by_side(measure, merged), strict=True))


def _joined(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Put measures together, and the deviations that each part knows."""
    deviations = {name: value for part in parts for name, value in part.get("deviations", {}).items()}
    return {name: value for part in parts for name, value in part.items()} | {"deviations": deviations}


def _pixel_measures(statistics: SubsetStatistics) -> dict[str, Any]:
    num_images = statistics.num_histograms
    mean = statistics.pixel_entropy_sum / num_images
    variance = max(0.0, statistics.pixel_entropy_squares / num_images - mean**2) / max(1, num_images - 1)
    deviation = math.sqrt(variance)
    reach = NORMAL_95 * deviation
    return {
        "pixel_entropy": mean,
        "pixel_entropy_interval": (max(0.0, mean - reach), mean + reach),
        "deviations": {"pixel_entropy": deviation},
    }


def _feature_measures(
    subset: str, statistics: SubsetStatistics, settings: ProfileSettings, rarefied_to: int
) -> dict[str, Any]:
    sample, seed = statistics.features.sample(), _subset_seed(settings.seed, subset)
    rarefied = dict(zip(_ORDERS, rarefied_scores(sample, rarefied_to, list(_ORDERS.values()), seed=seed), strict=True))
    score = rarefied.pop("1")
    low, high = statistics.features.vendi_bounds()
    relative = rarefied_deviation(sample, rarefied_to, seed=seed)
    return {
        "feature_diversity": score,
        "feature_diversity_interval": rarefied_interval(score, relative, most=min(len(sample), rarefied_to)),
        "feature_diversity_by_order": rarefied,
        "raw_feature_diversity": math.sqrt(low * high),
        "raw_feature_diversity_bounds": None if low == high else (low, high),
        **({} if settings.multi_label else _class_measures(statistics.features.sums_on_own_axes())),
        "deviations": {"feature_diversity": score * relative},
    }


def _class_measures(sums: FeatureSums) -> dict[str, Any]:
    """Say how well the features part the classes of a subset."""
    ratio = fisher_ratio(sums)
    return {
        "h_score": h_score(sums),
        # Any model explains the only class there is: its evidence has no bound but that of rounding.
        "log_evidence": log_evidence(sums) if len(sums.classes) > 1 else None,
        "fisher_ratio": ratio if math.isfinite(ratio) else None,
        "variance_between": variance_between(sums),
        "variance_within": variance_within(sums),
        **_class_distances(sums),
    }


def _class_distances(sums: FeatureSums) -> dict[str, Any]:
    """Say how far classes lie apart, and which two are closest, the first of equals by name."""
    apart = separation(sums)
    if not apart.neighbours:
        return {}
    closest = min(apart.neighbours, key=lambda found: found.distance)
    return {
        "mean_class_distance": apart.mean_distance,
        "closest_classes": ClassPair(one=closest.label, other=closest.nearest, distance=closest.distance),
    }


def _subset_seed(seed: int, subset: str) -> int:
    """Derive a seed that does not change when other subsets come or go."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {subset}".encode(), digest_size=8).digest(), "big")


def _check_label_space(counted: SubsetCounts, num_labels: int) -> None:
    if counted.num_categories > num_labels:
        raise DataError(f"at most {num_labels} labels can occur in this label space", value=counted.num_categories)


def _check_coverage(sizes: Mapping[str, int], merged: Mapping[str, SubsetStatistics], measures: Sequence[str]) -> None:
    if not {"pixel_entropy", "feature_diversity"} & set(measures):
        return
    for subset, num_images in sizes.items():
        statistics = merged.get(subset, SubsetStatistics())
        measured = {
            "pixel_entropy": statistics.num_histograms,
            "feature_diversity": statistics.features.num_images,
        }
        for measure, covered in measured.items():
            if measure in measures and covered != num_images:
                raise DataError(f"{measure} of subset {subset} must cover its {num_images} images", value=covered)
