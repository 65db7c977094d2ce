import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from diversity_examples import brute_force_vendi, identities, label_table, random_parts
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.config import DiversityMeasure, EntropyEstimator
from orchestrator.diversity.category_counts import count_rows, merge_counts
from orchestrator.diversity.features import SAMPLE_SIZE
from orchestrator.diversity.profiling import ProfileSettings, class_means, finish, rarefaction_size
from orchestrator.diversity.statistics import PartialProfile, merge_partials
from orchestrator.errors import DataError
from orchestrator.records import Profile

EVERY_MEASURE: list[DiversityMeasure] = ["label_entropy", "pixel_entropy", "feature_diversity"]


def finished(
    labels: pa.Table,
    partials: Sequence[PartialProfile] = (),
    measures: list[DiversityMeasure] = EVERY_MEASURE,
    num_labels: int = 4,
    min_images: int = 0,
    seed: int = 9,
    estimator: EntropyEstimator = "plug_in",
    attributes: dict[str, Sequence[str]] | None = None,
) -> Profile:
    settings = ProfileSettings(
        num_labels=num_labels,
        measures=measures,
        split="train",
        min_images=min_images,
        seed=seed,
        entropy_estimator=estimator,
        attributes=list(attributes or {}),
    )
    if attributes is None:
        return finish(labels, merge_partials(partials), settings)
    columns = {f"attribute {index}": values for index, values in enumerate(attributes.values())}
    subsets = ["site"] * len(columns["attribute 0"])
    counted = count_rows(pa.table({"subset": subsets, **columns}))
    return finish(labels, merge_partials(partials), settings, attributes=counted)


def with_features(**features: np.ndarray) -> tuple[pa.Table, list[PartialProfile]]:
    """Make the label counts and one partial profile of these subsets, all images of one label."""
    partial = PartialProfile(key=0)
    for subset, rows in features.items():
        partial.add_features(subset, rows, identities(len(rows), subset), ["cat"] * len(rows))
    return label_table(**{subset: ["cat"] * len(rows) for subset, rows in features.items()}), [partial]


@given(st.permutations(range(6)))
def test_the_profile_has_the_same_bits_in_whatever_order_partial_results_arrive(order: list[int]) -> None:
    labels, partials = random_parts(6)
    assert finished(labels, [partials[key] for key in order]).to_json() == finished(labels, partials).to_json()


def test_label_measures_as_computed_by_hand() -> None:
    (subset,) = finished(label_table(site=["dog", "cat", "cat", "cat"]), measures=["label_entropy"]).subsets
    assert subset.num_images == 4
    assert list(subset.label_counts.items()) == [("cat", 3), ("dog", 1)]
    assert subset.num_classes == 2
    assert subset.label_entropy == pytest.approx(0.5623351446188083, abs=1e-15)
    assert subset.normalized_label_entropy == pytest.approx(0.5623351446188083 / math.log(4), abs=1e-15)
    assert subset.effective_classes == pytest.approx(1.7547653506033, abs=1e-12)


def test_an_estimator_changes_all_that_comes_from_the_entropy() -> None:
    labels = label_table(site=["dog", "cat", "cat", "cat"])
    (plain,) = finished(labels, measures=["label_entropy"]).subsets
    (mended,) = finished(labels, measures=["label_entropy"], estimator="miller_madow").subsets
    assert mended.label_entropy == pytest.approx(plain.label_entropy + 1 / 8)
    assert mended.effective_classes == pytest.approx(math.exp(mended.label_entropy))
    assert mended.normalized_label_entropy == pytest.approx(mended.label_entropy / math.log(4))
    assert plain.imbalance_ratio == mended.imbalance_ratio == 3.0
    for subset in (plain, mended):
        assert subset.label_entropy_interval is not None
        low, high = subset.label_entropy_interval
        assert 0.0 <= low < subset.label_entropy < high <= math.log(4)


def test_feature_diversity_comes_with_its_interval_and_other_orders() -> None:
    rows = np.random.default_rng(3).normal(size=(40, 6))
    (small, large) = finished(*with_features(small=rows[:20], large=rows), ["feature_diversity"]).subsets[::-1]
    for subset in (small, large):
        assert subset.feature_diversity is not None and subset.feature_diversity_interval is not None
        low, high = subset.feature_diversity_interval
        assert low < subset.feature_diversity < high
        by_order = subset.feature_diversity_by_order
        assert list(by_order) == ["2", "inf"]
        assert 1.0 <= by_order["inf"] < by_order["2"] < subset.feature_diversity


def test_features_that_part_the_classes_score_higher_than_features_that_do_not() -> None:
    rows = np.random.default_rng(4).normal(size=(60, 6))
    labels = ["cat", "dog", "fox"] * 20
    parted = rows + 4 * np.eye(6)[[0, 1, 2] * 20]
    partial = PartialProfile(key=0)
    for subset, features in (("mixed", rows), ("parted", parted)):
        partial.add_features(subset, features, identities(60, subset), labels)
    counts = label_table(mixed=labels, parted=labels)
    mixed, well_parted = finished(counts, [partial], ["feature_diversity"]).subsets
    for name in ("h_score", "log_evidence", "fisher_ratio"):
        assert getattr(well_parted, name) > getattr(mixed, name)


@pytest.mark.filterwarnings("error")
def test_features_that_are_the_same_for_all_images_have_measures_too() -> None:
    features, labels = np.full((30, 40), 0.7, dtype=np.float32), ["cat", "dog"] * 15
    partial = PartialProfile(key=0)
    partial.add_features("alike", features, identities(30, "alike"), labels)
    partial.add_features("one class", features, identities(30, "one class"), ["cat"] * 30)
    partial.add_features("one image", features[:1], identities(1, "one image"), ["cat"])
    counts = {"alike": labels, "one class": ["cat"] * 30, "one image": ["cat"]}
    profile = finished(label_table(**counts), [partial], ["feature_diversity"])
    for subset in profile.subsets:
        assert subset.feature_diversity == pytest.approx(1.0) and subset.raw_feature_diversity == pytest.approx(1.0)
        assert subset.h_score == subset.fisher_ratio == 0.0
    evidences = {subset.subset: subset.log_evidence for subset in profile.subsets}
    assert evidences["alike"] is not None and evidences["alike"] < 0.0
    assert evidences["one class"] is evidences["one image"] is None
    assert Profile.from_json(profile.to_json(), source="") == profile


def test_sketched_features_state_the_bounds_of_their_score() -> None:
    features, labels = np.random.default_rng(0).normal(size=(700, 520)), ["cat", "dog"] * 350
    profiles = []
    for sketch_above in (520, 519):
        partial = PartialProfile(key=0, sketch_above=sketch_above)
        partial.add_features("large", features, identities(700, "large"), labels)
        # All are compared at its size, which is quick.
        partial.add_features("small", features[:12], identities(12, "small"), labels[:12])
        counts = label_table(large=labels, small=labels[:12])
        profiles.append(finished(counts, [partial], ["feature_diversity"]))
    (exact, small), (sketched, other) = (profile.subsets for profile in profiles)
    assert small == other and exact.raw_feature_diversity_bounds is None and exact.raw_feature_diversity is not None
    assert sketched.raw_feature_diversity_bounds is not None
    low, high = sketched.raw_feature_diversity_bounds
    assert low < exact.raw_feature_diversity < high
    assert sketched.feature_diversity == exact.feature_diversity
    assert exact.h_score is not None and sketched.h_score is not None and sketched.h_score <= exact.h_score


def test_classes_are_as_far_apart_as_their_mean_directions_and_the_closest_two_are_named() -> None:
    rows, labels = np.random.default_rng(5).normal(size=(60, 6)) + 2, np.array(["cat", "dog", "fox"] * 20)
    partial = PartialProfile(key=0)
    partial.add_features("site", rows, identities(60, "site"), labels.tolist())
    (subset,) = finished(label_table(site=labels.tolist()), [partial], ["feature_diversity"]).subsets
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = {name: directions[labels == name].mean(axis=0) for name in ("cat", "dog", "fox")}
    apart = {pair: float(np.linalg.norm(means[pair[0]] - means[pair[1]])) for pair in combinations(means, 2)}
    closest = subset.closest_classes
    assert closest is not None and (closest.one, closest.other) == min(apart, key=lambda pair: apart[pair])
    assert closest.distance == pytest.approx(min(apart.values()), rel=1e-9)
    assert subset.mean_class_distance == pytest.approx(np.mean(list(apart.values())), rel=1e-9)
    within = np.mean([((directions[index] - means[name]) ** 2).sum() for index, name in enumerate(labels)])
    assert subset.variance_within == pytest.approx(within, rel=1e-9)
    assert subset.fisher_ratio == pytest.approx(subset.variance_between / within, rel=1e-9)
    one_class = PartialProfile(key=0)
    one_class.add_features("site", rows, identities(60, "site"), ["cat"] * 60)
    (alone,) = finished(label_table(site=["cat"] * 60), [one_class], ["feature_diversity"]).subsets
    assert alone.closest_classes is None and alone.mean_class_distance is None


def test_measures_that_were_not_asked_for_are_none() -> None:
    profile = finished(*random_parts(3), ["label_entropy"])
    assert profile.rarefied_to is None
    for subset in profile.subsets:
        assert subset.pixel_entropy is subset.feature_diversity is subset.raw_feature_diversity is None
        assert subset.feature_diversity_interval is None and subset.feature_diversity_by_order == {}


def test_pixel_entropy_is_the_mean_over_images() -> None:
    histograms = np.random.default_rng(0).integers(0, 30, size=(5, 256))
    partials = []
    for key, rows in enumerate([[0, 1], [2, 3, 4]]):
        partial = PartialProfile(key=key)
        partial.add_histograms("site", histograms[rows])
        partials.append(partial)
    (subset,) = finished(label_table(site=["cat"] * 5), partials, ["pixel_entropy"]).subsets
    expected = np.mean([stats.entropy(histogram) for histogram in histograms])
    assert subset.pixel_entropy == pytest.approx(expected, rel=1e-12)


def test_subsets_are_ordered_by_name() -> None:
    assert [subset.subset for subset in finished(*random_parts(5)).subsets] == ["a", "b", "c"]


def test_raw_feature_diversity_is_the_score_of_all_images() -> None:
    features = np.random.default_rng(0).normal(size=(30, 4))
    (subset,) = finished(*with_features(site=features), ["feature_diversity"]).subsets
    assert subset.raw_feature_diversity == pytest.approx(brute_force_vendi(features), rel=1e-9)


def test_feature_diversity_is_compared_at_the_size_of_the_smallest_subset() -> None:
    profile = finished(*with_features(large=np.eye(40), small=np.eye(12, 40)), ["feature_diversity"])
    large, small = profile.subsets
    assert profile.rarefied_to == 12
    assert large.raw_feature_diversity == pytest.approx(40.0)
    assert large.feature_diversity == pytest.approx(12.0)
    assert small.feature_diversity == small.raw_feature_diversity == pytest.approx(12.0)


def test_a_subset_below_min_images_takes_what_it_has_and_does_not_set_the_size() -> None:
    partials = with_features(large=np.eye(20), small=np.eye(3, 20), tiny=np.eye(2, 20))
    profile = finished(*partials, ["feature_diversity"], min_images=3)
    assert profile.rarefied_to == 3
    assert [subset.feature_diversity for subset in profile.subsets] == pytest.approx([3.0, 3.0, 2.0])


def test_subsets_beyond_the_sample_are_compared_at_the_samples_size() -> None:
    features = np.random.default_rng(0).normal(size=(700, 3))
    features[600:] = [1.0, 0.0, 0.0]
    profile = finished(*with_features(site=features), ["feature_diversity"])
    (subset,) = profile.subsets
    assert profile.rarefied_to == SAMPLE_SIZE == 512
    assert subset.raw_feature_diversity == pytest.approx(brute_force_vendi(features), rel=1e-9)
    assert subset.feature_diversity == pytest.approx(subset.raw_feature_diversity, rel=0.05)


def test_a_subsets_score_does_not_change_when_another_subset_of_that_size_joins() -> None:
    rng = np.random.default_rng(0)
    first, second, third = rng.normal(size=(50, 6)), rng.normal(size=(20, 6)), rng.normal(size=(20, 6))
    alone = finished(*with_features(a=first, b=second), ["feature_diversity"])
    joined = finished(*with_features(a=first, b=second, c=third), ["feature_diversity"])
    assert joined.subsets[:2] == alone.subsets


def test_the_samples_of_a_subset_are_drawn_from_the_seed() -> None:
    rng = np.random.default_rng(0)
    partials = with_features(a=rng.normal(size=(50, 6)), b=rng.normal(size=(20, 6)))
    scores = [finished(*partials, ["feature_diversity"], seed=seed).subsets[0] for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_where_every_subset_is_small_the_smallest_sets_the_size() -> None:
    assert rarefaction_size([5, 3, 8], min_images=10) == 3
    assert rarefaction_size([5, 3, 8], min_images=4) == 5
    assert rarefaction_size([900, 2000], min_images=0) == 512
    assert rarefaction_size([], min_images=0) is None


def test_no_partial_results_make_an_empty_profile() -> None:
    assert finished(label_table()).subsets == []


@pytest.mark.parametrize("measure", ["pixel_entropy", "feature_diversity"])
def test_a_measure_that_misses_images_is_refused(measure: DiversityMeasure) -> None:
    labels, partials = random_parts(1)
    (subset, *_) = partials[0].subsets
    one_more = merge_counts([labels, label_table(**{subset: ["cat"]})])
    with pytest.raises(DataError, match=f"{measure} of subset {subset} must cover its"):
        finished(one_more, partials, [measure])


def test_more_labels_than_the_label_space_are_refused() -> None:
    with pytest.raises(DataError, match=r"at most 1 labels.*got 2"):
        finished(label_table(site=["cat", "dog"]), measures=["label_entropy"], num_labels=1)


def test_attributes_have_entropies_alone_and_together() -> None:
    weather, camera = ["sun", "sun", "rain", "rain"], ["left", "right", "left", "left"]
    columns = {"weather": weather, "count": camera}
    labels = label_table(site=["cat"] * 4)
    (subset,) = finished(labels, measures=["label_entropy"], attributes=columns).subsets
    assert subset.attribute_entropies == pytest.approx({"weather": math.log(2), "count": stats.entropy([3, 1])})
    assert subset.joint_attribute_entropy == pytest.approx(stats.entropy([1, 1, 2]))
    (plain,) = finished(labels, measures=["label_entropy"]).subsets
    assert plain.attribute_entropies == {} and plain.joint_attribute_entropy is None
    assert subset.attribute_counts == {"weather": {"rain": 2, "sun": 2}, "count": {"left": 3, "right": 1}}
    assert plain.attribute_counts == {}


def test_attributes_of_very_many_values_are_not_counted_one_by_one() -> None:
    labels = label_table(site=["cat"] * 51)
    columns = {"weather": ["sun"] * 51, "place": [f"place {number}" for number in range(51)]}
    (subset,) = finished(labels, measures=["label_entropy"], attributes=columns).subsets
    assert subset.attribute_counts == {"weather": {"sun": 51}}
    assert set(subset.attribute_entropies) == {"weather", "place"}


@pytest.mark.parametrize("count", [20, SAMPLE_SIZE + 40])
def test_class_means_are_those_of_unit_features_whether_rows_or_sums_are_kept(count: int) -> None:
    rows = np.random.default_rng(1).normal(size=(count, 3))
    rows[0] = 0.0
    labels = ["cat", "dog"] * (count // 2)
    parts = [PartialProfile(key=key) for key in range(2)]
    for part, chosen in zip(parts, (slice(0, 7), slice(7, None)), strict=True):
        part.add_features("b", rows[chosen], identities(count)[chosen], labels[chosen])
    found = class_means(merge_partials(parts)).to_pylist()
    assert [(row["subset"], row["label"], row["num_images"]) for row in found] == [
        ("b", "cat", count // 2),
        ("b", "dog", count // 2),
    ]
    units = np.hstack([rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.zeros((count, 1))])
    units[0, -1] = 1.0
    for row, first in zip(found, (0, 1), strict=True):
        assert row["mean"] == pytest.approx(units[first::2].mean(axis=0))


def test_subsets_without_features_have_no_class_means() -> None:
    assert class_means(merge_partials([PartialProfile(key=0)])).num_rows == 0
