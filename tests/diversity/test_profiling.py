import math

import numpy as np
import pytest
from diversity_examples import brute_force_vendi, identities, random_partials
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.config import DiversityMeasure, EntropyEstimator
from orchestrator.diversity.features import SAMPLE_SIZE
from orchestrator.diversity.profiling import ProfileSettings, finish, rarefaction_size
from orchestrator.diversity.statistics import PartialProfile
from orchestrator.errors import DataError
from orchestrator.records import Profile

EVERY_MEASURE: list[DiversityMeasure] = ["label_entropy", "pixel_entropy", "feature_diversity"]


def finished(
    partials: list[PartialProfile],
    measures: list[DiversityMeasure] = EVERY_MEASURE,
    num_labels: int = 4,
    min_images: int = 0,
    seed: int = 9,
    estimator: EntropyEstimator = "plug_in",
) -> Profile:
    settings = ProfileSettings(
        num_labels=num_labels,
        measures=measures,
        split="train",
        min_images=min_images,
        seed=seed,
        entropy_estimator=estimator,
    )
    return finish(partials, settings)


def with_features(**features: np.ndarray) -> list[PartialProfile]:
    """Make one partial profile of these subsets, all images of one label."""
    partial = PartialProfile(key=0)
    for subset, rows in features.items():
        partial.add_labels(subset, ["cat"] * len(rows))
        partial.add_features(subset, rows, identities(len(rows), subset), ["cat"] * len(rows))
    return [partial]


@given(st.permutations(range(6)))
def test_the_profile_has_the_same_bits_in_whatever_order_partial_results_arrive(order: list[int]) -> None:
    partials = random_partials(6)
    assert finished([partials[key] for key in order]).to_json() == finished(partials).to_json()


def test_label_measures_as_computed_by_hand() -> None:
    partial = PartialProfile(key=0)
    partial.add_labels("site", ["dog", "cat", "cat", "cat"])
    (subset,) = finished([partial], ["label_entropy"]).subsets
    assert subset.num_images == 4
    assert list(subset.label_counts.items()) == [("cat", 3), ("dog", 1)]
    assert subset.num_classes == 2
    assert subset.label_entropy == pytest.approx(0.5623351446188083, abs=1e-15)
    assert subset.normalized_label_entropy == pytest.approx(0.5623351446188083 / math.log(4), abs=1e-15)
    assert subset.effective_classes == pytest.approx(1.7547653506033, abs=1e-12)


def test_an_estimator_changes_all_that_comes_from_the_entropy() -> None:
    partial = PartialProfile(key=0)
    partial.add_labels("site", ["dog", "cat", "cat", "cat"])
    (plain,) = finished([partial], ["label_entropy"]).subsets
    (mended,) = finished([partial], ["label_entropy"], estimator="miller_madow").subsets
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
    (small, large) = finished(with_features(small=rows[:20], large=rows), ["feature_diversity"]).subsets[::-1]
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
        partial.add_labels(subset, labels)
        partial.add_features(subset, features, identities(60, subset), labels)
    mixed, well_parted = finished([partial], ["feature_diversity"]).subsets
    for name in ("h_score", "log_evidence", "fisher_ratio"):
        assert getattr(well_parted, name) > getattr(mixed, name)


def test_measures_that_were_not_asked_for_are_none() -> None:
    profile = finished(random_partials(3), ["label_entropy"])
    assert profile.rarefied_to is None
    for subset in profile.subsets:
        assert subset.pixel_entropy is subset.feature_diversity is subset.raw_feature_diversity is None
        assert subset.feature_diversity_interval is None and subset.feature_diversity_by_order == {}


def test_pixel_entropy_is_the_mean_over_images() -> None:
    histograms = np.random.default_rng(0).integers(0, 30, size=(5, 256))
    partials = []
    for key, rows in enumerate([[0, 1], [2, 3, 4]]):
        partial = PartialProfile(key=key)
        partial.add_labels("site", ["cat"] * len(rows))
        partial.add_histograms("site", histograms[rows])
        partials.append(partial)
    (subset,) = finished(partials, ["pixel_entropy"]).subsets
    expected = np.mean([stats.entropy(histogram) for histogram in histograms])
    assert subset.pixel_entropy == pytest.approx(expected, rel=1e-12)


def test_subsets_are_ordered_by_name() -> None:
    assert [subset.subset for subset in finished(random_partials(5)).subsets] == ["a", "b", "c"]


def test_raw_feature_diversity_is_the_score_of_all_images() -> None:
    features = np.random.default_rng(0).normal(size=(30, 4))
    (subset,) = finished(with_features(site=features), ["feature_diversity"]).subsets
    assert subset.raw_feature_diversity == pytest.approx(brute_force_vendi(features), rel=1e-9)


def test_feature_diversity_is_compared_at_the_size_of_the_smallest_subset() -> None:
    profile = finished(with_features(large=np.eye(40), small=np.eye(12, 40)), ["feature_diversity"])
    large, small = profile.subsets
    assert profile.rarefied_to == 12
    assert large.raw_feature_diversity == pytest.approx(40.0)
    assert large.feature_diversity == pytest.approx(12.0)
    assert small.feature_diversity == small.raw_feature_diversity == pytest.approx(12.0)


def test_a_subset_below_min_images_takes_what_it_has_and_does_not_set_the_size() -> None:
    partials = with_features(large=np.eye(20), small=np.eye(3, 20), tiny=np.eye(2, 20))
    profile = finished(partials, ["feature_diversity"], min_images=3)
    assert profile.rarefied_to == 3
    assert [subset.feature_diversity for subset in profile.subsets] == pytest.approx([3.0, 3.0, 2.0])


def test_subsets_beyond_the_sample_are_compared_at_the_samples_size() -> None:
    features = np.random.default_rng(0).normal(size=(700, 3))
    features[600:] = [1.0, 0.0, 0.0]
    profile = finished(with_features(site=features), ["feature_diversity"])
    (subset,) = profile.subsets
    assert profile.rarefied_to == SAMPLE_SIZE == 512
    assert subset.raw_feature_diversity == pytest.approx(brute_force_vendi(features), rel=1e-9)
    assert subset.feature_diversity == pytest.approx(subset.raw_feature_diversity, rel=0.05)


def test_a_subsets_score_does_not_change_when_another_subset_of_that_size_joins() -> None:
    rng = np.random.default_rng(0)
    first, second, third = rng.normal(size=(50, 6)), rng.normal(size=(20, 6)), rng.normal(size=(20, 6))
    alone = finished(with_features(a=first, b=second), ["feature_diversity"])
    joined = finished(with_features(a=first, b=second, c=third), ["feature_diversity"])
    assert joined.subsets[:2] == alone.subsets


def test_the_samples_of_a_subset_are_drawn_from_the_seed() -> None:
    rng = np.random.default_rng(0)
    partials = with_features(a=rng.normal(size=(50, 6)), b=rng.normal(size=(20, 6)))
    scores = [finished(partials, ["feature_diversity"], seed=seed).subsets[0] for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_where_every_subset_is_small_the_smallest_sets_the_size() -> None:
    assert rarefaction_size([5, 3, 8], min_images=10) == 3
    assert rarefaction_size([5, 3, 8], min_images=4) == 5
    assert rarefaction_size([900, 2000], min_images=0) == 512
    assert rarefaction_size([], min_images=0) is None


def test_no_partial_results_make_an_empty_profile() -> None:
    assert finished([]).subsets == []


@pytest.mark.parametrize("measure", ["pixel_entropy", "feature_diversity"])
def test_a_measure_that_misses_images_is_refused(measure: DiversityMeasure) -> None:
    partial = random_partials(1)[0]
    subset = next(iter(partial.subsets))
    partial.add_labels(subset, ["cat"])
    with pytest.raises(DataError, match=f"{measure} of subset {subset} must cover its"):
        finished([partial], [measure])
