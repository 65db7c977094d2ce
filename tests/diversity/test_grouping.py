from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from diversity_examples import a_profile
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import GroupingConfig
from orchestrator.diversity.grouping import group_names, group_subsets
from orchestrator.errors import ConfigError, DataError, RecordError
from orchestrator.records import Groups, Profile

Method = Literal["thresholds", "quantiles", "jenks", "kmeans"]

# Multiples of 1/64 make ties likely and differences representable.
SCORES = st.lists(st.integers(0, 300).map(lambda value: value / 64), min_size=1, max_size=25)


def grouped(
    profile: Profile,
    method: Method = "quantiles",
    num_groups: int | Literal["auto"] = 3,
    thresholds: list[float] | None = None,
    min_images: int = 0,
    measures: tuple[Literal["label_entropy", "pixel_entropy"], ...] = ("label_entropy",),
    on_indistinct: Literal["keep", "merge", "fail"] = "keep",
) -> Groups:
    config = GroupingConfig(
        method=method,
        num_groups=num_groups,
        thresholds=thresholds or [],
        min_images=min_images,
        on_indistinct=on_indistinct,
    )
    return group_subsets(profile, config, measures)


def members(groups: Groups) -> list[list[str]]:
    return [group.subsets for group in groups.groups]


def scores_by_group(groups: Groups, profile: Profile) -> list[list[float]]:
    scores = {subset.subset: subset.label_entropy for subset in profile.subsets}
    return [[scores[name] for name in group.subsets] for group in groups.groups]


def test_quantiles_make_groups_of_equal_numbers_in_ascending_order() -> None:
    groups = grouped(a_profile([0.9, 0.1, 0.5, 0.2, 0.8, 0.6]))
    assert members(groups) == [["s01", "s03"], ["s02", "s05"], ["s00", "s04"]]
    assert [group.score_range for group in groups.groups] == [(0.1, 0.2), (0.5, 0.6), (0.8, 0.9)]
    assert [group.num_images for group in groups.groups] == [200, 200, 200]
    assert (groups.method, groups.measures) == ("quantiles", ["label_entropy"])


@given(SCORES, st.integers(1, 6), st.sampled_from(["quantiles", "jenks", "kmeans"]), st.integers(0, 3))
def test_every_subset_is_in_exactly_one_group(
    scores: list[float], num_groups: int, method: Method, min_images: int
) -> None:
    sizes = [index % 3 + (index == 0) * 3 for index in range(len(scores))]
    groups = grouped(a_profile(scores, sizes=sizes), method, num_groups, min_images=min_images)
    names = [name for group in groups.groups for name in group.subsets]
    assert sorted(names) == [f"s{index:02d}" for index in range(len(scores))]
    assert all(group.subsets for group in groups.groups)
    small = sorted(name for group in groups.groups for name in group.small_subsets)
    assert small == [f"s{index:02d}" for index, size in enumerate(sizes) if size < min_images]
    assert sum(group.num_images for group in groups.groups) == sum(sizes)


@given(SCORES, st.integers(1, 6), st.sampled_from(["quantiles", "jenks", "kmeans"]))
def test_groups_ascend_and_equal_scores_stay_together(scores: list[float], num_groups: int, method: Method) -> None:
    profile = a_profile(scores)
    groups = grouped(profile, method, num_groups)
    assert len(groups.groups) == min(num_groups, len(set(scores)))
    ranges = [group.score_range for group in groups.groups]
    assert all(below[1] < above[0] for below, above in pairwise(ranges))
    for group, values in zip(groups.groups, scores_by_group(groups, profile), strict=True):
        assert group.score_range == (min(values), max(values))


@given(st.sets(st.integers(0, 1000), min_size=1, max_size=30), st.integers(1, 7))
def test_without_ties_quantile_groups_differ_by_at_most_one_subset(scores: set[int], num_groups: int) -> None:
    groups = grouped(a_profile([float(score) for score in sorted(scores)]), num_groups=num_groups)
    sizes = [len(group.subsets) for group in groups.groups]
    assert max(sizes) - min(sizes) <= 1


@given(SCORES, st.sampled_from(["quantiles", "jenks", "kmeans"]), st.randoms(use_true_random=False))
def test_the_order_of_the_profile_does_not_matter(scores: list[float], method: Method, random) -> None:
    profile = a_profile(scores)
    shuffled = profile.model_copy(update={"subsets": random.sample(profile.subsets, len(profile.subsets))})
    assert grouped(shuffled, method) == grouped(profile, method)


def test_ties_move_a_cut_rather_than_straddle_it() -> None:
    assert members(grouped(a_profile([1, 1, 1, 1, 2, 3]))) == [["s00", "s01", "s02", "s03"], ["s04"], ["s05"]]


def test_kmeans_finds_clumps_of_unequal_size() -> None:
    scores = [0.1, 0.11, 0.12, 0.13, 2.0, 2.02, 4.0]
    assert [len(group.subsets) for group in grouped(a_profile(scores), "kmeans").groups] == [4, 2, 1]


def test_kmeans_on_two_measures_weighs_them_alike() -> None:
    # In raw numbers the second measure is all; standardised, the first tells the clumps apart as well.
    profile = a_profile([0.0, 0.1, 0.0, 0.1], pixel_entropies=[100.0, 300.0, 102.0, 298.0])
    groups = grouped(profile, "kmeans", 2, measures=("label_entropy", "pixel_entropy"))
    assert members(groups) == [["s00", "s02"], ["s01", "s03"]]
    profile = a_profile([0.0, 0.1, 0.0, 0.1], pixel_entropies=[100.0, 120.0, 110.0, 90.0])
    groups = grouped(profile, "kmeans", 2, measures=("label_entropy", "pixel_entropy"))
    assert members(groups) == [["s00", "s02"], ["s01", "s03"]]


def test_quantiles_of_several_measures_cut_the_mean_of_their_standard_scores() -> None:
    label, pixel = [0.0, 1.0, 2.0, 3.0], [40.0, 10.0, 20.0, 10.0]
    groups = grouped(a_profile(label, pixel_entropies=pixel), num_groups=2, measures=("label_entropy", "pixel_entropy"))
    standard = [(np.array(values) - np.mean(values)) / np.std(values) for values in (label, pixel)]
    order = np.argsort(np.mean(standard, axis=0))
    assert members(groups) == [sorted(f"s{index:02d}" for index in half) for half in np.split(order, 2)]
    assert groups.groups[0].score_range == (min(label[i] for i in order[:2]), max(label[i] for i in order[:2]))


def test_thresholds_cut_the_measure_and_a_border_goes_up() -> None:
    groups = grouped(a_profile([0.5, 1.0, 1.5, 2.0, 0.9]), "thresholds", thresholds=[1.0, 2.0])
    assert [group.name for group in groups.groups] == ["low", "medium", "high"]
    assert members(groups) == [["s00", "s04"], ["s01", "s02"], ["s03"]]


def test_intervals_that_hold_no_subset_form_no_group() -> None:
    groups = grouped(a_profile([0.5, 7.0]), "thresholds", thresholds=[1.0, 2.0, 3.0])
    assert [group.name for group in groups.groups] == ["g0", "g1"]


@pytest.mark.parametrize("method", ["quantiles", "jenks", "kmeans"])
def test_a_small_subset_joins_the_nearest_group_and_moves_no_border(method: Method) -> None:
    scores, sizes = [0.0, 0.1, 1.0, 1.1, 5.0, 5.1, 4.0, 0.2], [50] * 6 + [3, 4]
    profile = a_profile(scores, sizes=sizes)
    groups = grouped(profile, method, min_images=10)
    assert members(groups) == [["s00", "s01", "s07"], ["s02", "s03"], ["s04", "s05", "s06"]]
    assert [group.small_subsets for group in groups.groups] == [["s07"], [], ["s06"]]
    assert groups.groups[2].score_range == (4.0, 5.1)
    assert groups.groups[2].num_images == 103


def test_with_thresholds_a_small_subset_keeps_to_its_interval_where_that_is_a_group() -> None:
    profile = a_profile([1.9, 3.9, 2.1], sizes=[50, 50, 3])
    groups = grouped(profile, "thresholds", thresholds=[2.0], min_images=10)
    assert members(groups) == [["s00"], ["s01", "s02"]]


def test_with_thresholds_a_small_subset_alone_in_its_interval_joins_the_nearest_group() -> None:
    profile = a_profile([0.1, 3.0, 1.2], sizes=[50, 50, 3])
    groups = grouped(profile, "thresholds", thresholds=[1.0, 2.0], min_images=10)
    assert members(groups) == [["s00", "s02"], ["s01"]]
    assert groups.groups[0].small_subsets == ["s02"]


def test_three_groups_are_low_medium_and_high_and_others_are_numbered() -> None:
    assert group_names(3) == ["low", "medium", "high"]
    assert group_names(1) == ["g0"]
    assert group_names(4) == ["g0", "g1", "g2", "g3"]


def test_names_follow_the_number_of_groups_that_were_formed() -> None:
    assert [group.name for group in grouped(a_profile([1.0, 2.0, 2.0])).groups] == ["g0", "g1"]
    assert [group.name for group in grouped(a_profile([1.0, 2.0, 3.0]), num_groups=9).groups] == [
        "low",
        "medium",
        "high",
    ]


def test_a_measure_that_was_not_taken_is_named_with_its_remedy() -> None:
    with pytest.raises(RecordError, match=r"pixel_entropy of subset s00\. Add pixel_entropy to diversity"):
        grouped(a_profile([1.0]), measures=("pixel_entropy",))


def test_a_profile_without_subsets_cannot_be_grouped() -> None:
    with pytest.raises(RecordError, match="at least one subset"):
        grouped(a_profile([]))


def test_min_images_above_every_subset_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least one of 2 subsets, got 10\. Lower it to 7 or less"):
        grouped(a_profile([1.0, 2.0], sizes=[5, 7]), min_images=10)


ALIKE = a_profile([0.50, 0.51, 0.52, 0.53, 0.54, 0.55], reach=0.1)
APART = a_profile([0.1, 0.11, 0.5, 0.51, 0.9, 0.91], reach=0.05)


@pytest.mark.parametrize("method", ["quantiles", "jenks", "kmeans"])
def test_subsets_that_differ_beyond_their_intervals_stay_apart(method: Method) -> None:
    groups = grouped(APART, method, on_indistinct="fail")
    assert groups.difference_p_value is not None and groups.difference_p_value < 1e-6
    assert len(groups.groups) == 3
    assert all(share > 0.99 for group in groups.groups for share in group.stability.values())
    assert sorted(name for group in groups.groups for name in group.stability) == [f"s{i:02d}" for i in range(6)]


def test_groups_of_subsets_that_chance_parts_are_kept_merged_or_refused() -> None:
    kept = grouped(ALIKE)
    assert kept.difference_p_value is not None and kept.difference_p_value > 0.5
    assert len(kept.groups) == 3
    assert min(share for group in kept.groups for share in group.stability.values()) < 0.7
    merged = grouped(ALIKE, on_indistinct="merge")
    assert [len(group.subsets) for group in merged.groups] == [6]
    assert merged.groups[0].stability == {}
    with pytest.raises(DataError, match=r"must differ beyond chance.*got p = .*on_indistinct"):
        grouped(ALIKE, on_indistinct="fail")


def test_one_group_is_never_indistinct() -> None:
    assert len(grouped(ALIKE, num_groups=1, on_indistinct="fail").groups) == 1


def test_measures_without_intervals_leave_open_whether_subsets_differ() -> None:
    groups = grouped(a_profile([0.1, 0.5, 0.9]), on_indistinct="fail")
    assert groups.difference_p_value is None
    assert all(group.stability == {} for group in groups.groups)


def test_subsets_too_small_to_form_groups_do_not_make_them_differ() -> None:
    profile = a_profile([0.5, 0.5, 0.5, 9.0], sizes=[100, 100, 100, 2], reach=0.1)
    assert grouped(profile, min_images=10).difference_p_value == 1.0


def test_jenks_cuts_at_the_gaps_where_quantiles_make_equal_numbers() -> None:
    profile = a_profile([0.1, 0.11, 0.12, 0.13, 0.14, 0.9])
    assert [len(group.subsets) for group in grouped(profile, "jenks", 2).groups] == [5, 1]
    assert [len(group.subsets) for group in grouped(profile, "quantiles", 2).groups] == [3, 3]


@pytest.mark.parametrize("method", ["jenks", "kmeans"])
@pytest.mark.parametrize("num_clusters", [2, 3, 5])
def test_the_number_of_groups_can_be_found(method: Method, num_clusters: int) -> None:
    scores = [float(cluster) + 0.02 * step for cluster in range(num_clusters) for step in range(4)]
    assert [len(group.subsets) for group in grouped(a_profile(scores), method, "auto").groups] == [4] * num_clusters


@pytest.mark.parametrize("scores", [[1.0], [1.0, 1.0, 1.0], [1.0, 2.0]])
def test_too_few_different_subsets_are_one_group(scores: list[float]) -> None:
    assert len(grouped(a_profile(scores), "jenks", "auto").groups) == 1
