import pytest
from diversity_examples import a_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from orchestrator.config import DiversityMeasure, GroupingConfig
from orchestrator.diversity.assignment import assign_subsets
from orchestrator.diversity.estimators import NORMAL_95
from orchestrator.diversity.grouping import group_subsets
from orchestrator.errors import RecordError
from orchestrator.records import Groups, Profile

ENTROPY: tuple[DiversityMeasure, ...] = ("label_entropy",)
BOTH: tuple[DiversityMeasure, ...] = ("label_entropy", "pixel_entropy")
CONFIGS = [
    GroupingConfig(method="thresholds", thresholds=[1.0, 2.0, 3.0]),
    *[GroupingConfig(method=method, num_groups=3) for method in ("quantiles", "jenks", "kmeans")],
    GroupingConfig(method="jenks", num_groups="auto"),
    GroupingConfig(method="kmeans", num_groups="auto"),
]

# Few digits make ties likely; many make differences that only just are.
NUMBERS = st.one_of(st.integers(0, 300).map(lambda value: value / 64), st.floats(0.0, 5.0))
SUBSETS = st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from([3, 50])), min_size=1, max_size=15)


def grouped(profile: Profile, config: GroupingConfig, measures: tuple[DiversityMeasure, ...] = ENTROPY) -> Groups:
    groups = group_subsets(profile, config, measures)
    return Groups.from_json(groups.to_json(), source="groups.json")


def places(profile: Profile, groups: Groups) -> dict[str, str]:
    return {found.subset: found.group for found in assign_subsets(profile, groups, min_images=10)}


@given(SUBSETS, st.sampled_from(CONFIGS), st.booleans())
def test_a_subset_of_the_run_is_assigned_to_its_own_group(
    rows: list[tuple[float, float, int]], config: GroupingConfig, is_one_measure: bool
) -> None:
    sizes = [50, *[size for _, _, size in rows[1:]]]
    profile = a_profile([row[0] for row in rows], sizes=sizes, pixel_entropies=[row[1] for row in rows])
    measures = ENTROPY if is_one_measure or config.method == "thresholds" else BOTH
    groups = grouped(profile, config, measures)
    assert places(profile, groups) == {name: group.name for group in groups.groups for name in group.subsets}


@settings(max_examples=40)
@given(SUBSETS, st.sampled_from(CONFIGS), st.randoms(use_true_random=False))
def test_neither_order_nor_company_changes_an_assignment(
    rows: list[tuple[float, float, int]], config: GroupingConfig, random
) -> None:
    groups = grouped(a_profile([0.1, 0.2, 1.1, 1.3, 2.9, 3.0, 4.5]), config)
    profile = a_profile([row[0] for row in rows], reach=0.5)
    found = assign_subsets(profile, groups, min_images=10)
    shuffled = profile.model_copy(update={"subsets": random.sample(profile.subsets, len(rows))})
    assert assign_subsets(shuffled, groups, min_images=10) == found
    alone = [profile.model_copy(update={"subsets": [subset]}) for subset in profile.subsets]
    assert [assign_subsets(one, groups, min_images=10)[0] for one in alone] == found


@pytest.mark.parametrize("method", ["quantiles", "jenks", "kmeans"])
def test_a_newcomer_joins_the_group_that_it_is_nearest_to(method: str) -> None:
    groups = grouped(a_profile([0.0, 0.2, 2.0, 2.2, 4.0, 4.2]), GroupingConfig(method=method, num_groups=3))
    newcomers = a_profile([-3.0, 1.0, 1.2, 2.9, 3.3, 9.0])
    assert list(places(newcomers, groups).values()) == ["low", "low", "medium", "medium", "high", "high"]


def test_groups_that_were_merged_take_every_newcomer() -> None:
    config = GroupingConfig(method="kmeans", num_groups=3, on_indistinct="merge")
    groups = grouped(a_profile([0.5, 0.51, 0.52, 0.53], reach=0.1), config)
    assert set(places(a_profile([0.0, 0.5, 9.0]), groups).values()) == {"g0"}


def test_certainty_is_the_chance_to_fall_into_the_same_group_again() -> None:
    groups = grouped(a_profile([0.0, 1.0, 3.0, 4.0], reach=0.01), GroupingConfig(num_groups=2))
    newcomers = a_profile([0.0, 1.9, 2.0, 2.3], reach=0.5)
    deviation = 0.5 / NORMAL_95
    for found, value in zip(assign_subsets(newcomers, groups, min_images=10), [0.0, 1.9, 2.0, 2.3], strict=True):
        assert found.values == {"label_entropy": value}
        assert found.certainty == pytest.approx(norm.cdf(abs(value - 2.0) / deviation), abs=0.1)


def test_without_intervals_certainty_is_not_known() -> None:
    groups = grouped(a_profile([0.0, 1.0]), GroupingConfig(num_groups=2))
    assert [found.certainty for found in assign_subsets(a_profile([0.4]), groups, min_images=10)] == [None]


def with_features(scores: list[float], sizes: list[int], compared_at: int) -> Profile:
    profile = a_profile([0.0] * len(scores), sizes=sizes)
    subsets = [
        subset.model_copy(update={"feature_diversity": score, "deviations": {"feature_diversity": 0.05}})
        for subset, score in zip(profile.subsets, scores, strict=True)
    ]
    return profile.model_copy(update={"subsets": subsets, "rarefied_to": compared_at})


def test_a_subset_with_fewer_images_than_features_were_compared_at_is_flagged_and_never_sure() -> None:
    groups = grouped(
        with_features([2.0, 9.0], [60, 40], 40), GroupingConfig(num_groups=2), measures=("feature_diversity",)
    )
    many, few, fewer = assign_subsets(with_features([2.1] * 3, [40, 39, 9], 40), groups, min_images=10)
    assert [found.is_comparable for found in (many, few, fewer)] == [True, False, False]
    assert [found.is_small for found in (many, few, fewer)] == [False, False, True]
    assert [found.certainty for found in (many, few, fewer)] == [1.0, None, None]
    assert {found.group for found in (many, few, fewer)} == {"g0"}


def test_measures_of_labels_are_comparable_at_any_size() -> None:
    groups = grouped(a_profile([0.0, 1.0]), GroupingConfig(num_groups=2))
    (found,) = assign_subsets(with_features([1.0], [3], 40), groups, min_images=10)
    assert found.is_comparable and found.is_small


def test_a_profile_that_lacks_the_groups_measure_is_refused() -> None:
    groups = grouped(a_profile([0.0, 1.0]), GroupingConfig(num_groups=2))
    other = groups.model_copy(update={"measures": ["pixel_entropy"]})
    with pytest.raises(RecordError, match="must hold pixel_entropy"):
        assign_subsets(a_profile([0.5]), other, min_images=10)


def test_no_newcomers_need_no_group() -> None:
    groups = grouped(a_profile([0.0, 1.0]), GroupingConfig(num_groups=2))
    assert assign_subsets(a_profile([]), groups, min_images=10) == []
