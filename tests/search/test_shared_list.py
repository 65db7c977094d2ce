"""The list that all groups try first: heads over the rates, and the rest of the space evenly."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from search_examples import NUM_STAGES, a_search

from orchestrator.config import Range
from orchestrator.search.shared_list import at, searches_depth, share_of, shared_list
from orchestrator.search.space import SearchSpace

SPACE = SearchSpace.from_config(a_search().space, NUM_STAGES)


def test_heads_cover_the_rates_and_take_the_most_epochs() -> None:
    heads = shared_list(SPACE, num_stages=NUM_STAGES, heads=4, others=0, seed=0)
    assert {recipe.freeze_depth for recipe in heads} == {NUM_STAGES}
    assert {recipe.epochs for recipe in heads} == {8}
    rates = [recipe.learning_rate for recipe in heads]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] / rates[-1] == pytest.approx(10 ** (3 * 3 / 4))


def test_the_others_spread_over_depths_and_rates() -> None:
    others = shared_list(SPACE, num_stages=NUM_STAGES, heads=0, others=10, seed=0)
    assert len(others) == 10
    assert {recipe.freeze_depth for recipe in others} == set(range(NUM_STAGES))
    assert sum(recipe.learning_rate < 10**-2.5 for recipe in others) in range(3, 8)


def test_the_list_depends_on_the_seed_alone() -> None:
    lists = [shared_list(SPACE, num_stages=NUM_STAGES, heads=3, others=5, seed=seed) for seed in (1, 1, 2)]
    assert lists[0] == lists[1] != lists[2]


def test_a_space_without_head_only_depth_has_no_heads() -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=Range(low=0, high=2)).space, NUM_STAGES)
    recipes = shared_list(space, num_stages=NUM_STAGES, heads=4, others=3, seed=0)
    assert len(recipes) == 3 and max(recipe.freeze_depth for recipe in recipes) <= 2


@pytest.mark.parametrize("freeze_depth", [[0, 3], Range(low=1, high=3)])
def test_a_space_says_which_depths_it_holds(freeze_depth: object) -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=freeze_depth).space, NUM_STAGES)
    held = [depth for depth in range(NUM_STAGES + 1) if searches_depth(space, depth)]
    assert held == ([0, 3] if isinstance(freeze_depth, list) else [1, 2, 3])


def test_a_space_of_heads_alone_has_no_others() -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=[NUM_STAGES]).space, NUM_STAGES)
    recipes = shared_list(space, num_stages=NUM_STAGES, heads=2, others=3, seed=0)
    assert len(recipes) == 2


@pytest.mark.parametrize(
    "distribution",
    [FloatDistribution(1e-4, 1e-1, log=True), FloatDistribution(0.0, 3.0), IntDistribution(1, 7)],
)
def test_places_and_values_are_each_others_inverse(distribution: FloatDistribution | IntDistribution) -> None:
    assert at(distribution, 0.0) == pytest.approx(distribution.low)
    assert at(distribution, 1.0) == pytest.approx(distribution.high)
    for share in (0.1, 0.5, 0.9):
        value = at(distribution, share)
        assert share_of(distribution, value) == pytest.approx(share, abs=0.1)


def test_choices_count_alike() -> None:
    choices = CategoricalDistribution([10, 20, 50])
    assert [at(choices, share) for share in (0.0, 0.4, 1.0)] == [10, 20, 50]
    assert share_of(choices, 50) > share_of(choices, 10)


def test_heads_vary_nothing_where_that_can_be_chosen_so_that_they_train_together() -> None:
    search = a_search(flip=[True, False], crop={"low": 0.0, "high": 0.2}, randaugment=[1, 2])
    space = SearchSpace.from_config(search.space, NUM_STAGES)
    heads = shared_list(space, num_stages=NUM_STAGES, heads=2, others=0, seed=0)
    assert [(head.flip, head.crop, head.randaugment) for head in heads] == [(False, 0.0, 2)] * 2
    others = shared_list(space, num_stages=NUM_STAGES, heads=0, others=10, seed=0)
    assert {recipe.flip for recipe in others} == {False, True}
