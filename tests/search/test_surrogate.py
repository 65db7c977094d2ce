"""What earlier searches found stands in for what a search has not tried yet, as far as it is found again."""

from __future__ import annotations

import numpy as np
from search_examples import NUM_STAGES, a_search

from orchestrator.records import Hyperparameters
from orchestrator.search.promise import most_promising
from orchestrator.search.space import SearchSpace
from orchestrator.search.surrogate import LEAST_SCORES, Prior, Surrogate

SPACE = SearchSpace.from_config(a_search(), NUM_STAGES)


def a_recipe(freeze_depth: int, learning_rate: float = 1e-2, epochs: int = 4) -> Hyperparameters:
    return SPACE.complete({"freeze_depth": freeze_depth, "learning_rate": learning_rate, "epochs": epochs})


EVERYWHERE = [a_recipe(depth, rate) for depth in range(NUM_STAGES + 1) for rate in (1e-3, 3e-3, 1e-2)]
DEPTHS = [a_recipe(depth, 2e-3) for depth in range(NUM_STAGES + 1)]


def deeper_is_better(recipe: Hyperparameters) -> float:
    return 0.5 + 0.05 * recipe.freeze_depth


def shallower_is_better(recipe: Hyperparameters) -> float:
    return 0.9 - 0.05 * recipe.freeze_depth


def a_prior() -> Prior:
    prior = Prior.of_searches([(EVERYWHERE, [deeper_is_better(recipe) for recipe in EVERYWHERE])], space=SPACE, seed=0)
    assert prior is not None
    return prior


def pick(tried: list[Hyperparameters], scores: list[float], prior: Prior | None) -> int:
    chosen = most_promising(
        DEPTHS, [1.0] * len(DEPTHS), tried, scores, space=SPACE, budget_left=1.0, seed=0, prior=prior
    )
    return DEPTHS[chosen].freeze_depth


def test_what_is_not_tried_is_expected_from_earlier_searches() -> None:
    expected = a_prior().expect(DEPTHS)
    assert np.all(np.diff(expected) > 0)
    assert np.isclose(expected[-1] - expected[0], 0.05 * NUM_STAGES, rtol=0.2)


def test_a_search_that_knows_one_depth_goes_where_an_earlier_one_was_best() -> None:
    tried = [a_recipe(2, rate) for rate in (1e-4, 3e-4, 1e-3, 1e-2)]
    scores = [0.60, 0.61, 0.62, 0.61]
    assert pick(tried, scores, a_prior()) == NUM_STAGES


def test_a_search_that_finds_the_opposite_trusts_its_own() -> None:
    scores = [shallower_is_better(recipe) for recipe in EVERYWHERE]
    surrogate = Surrogate.fit(EVERYWHERE, scores, space=SPACE, seed=0, prior=a_prior())
    assert surrogate.slope == 0.0
    assert pick(EVERYWHERE, scores, a_prior()) == pick(EVERYWHERE, scores, None) == 0


def test_the_same_landscape_again_is_taken_over_as_it_is() -> None:
    scores = [deeper_is_better(recipe) for recipe in EVERYWHERE]
    surrogate = Surrogate.fit(EVERYWHERE, scores, space=SPACE, seed=0, prior=a_prior())
    assert np.isclose(surrogate.slope, 1.0, atol=0.1)


def test_a_landscape_without_hills_expects_nothing() -> None:
    flat = Prior.of_searches([(EVERYWHERE, [0.5] * len(EVERYWHERE))], space=SPACE, seed=0)
    assert flat is not None
    assert np.allclose(flat.expect(DEPTHS), 0.0, atol=1e-6)
    scores = [deeper_is_better(recipe) for recipe in EVERYWHERE]
    assert pick(EVERYWHERE, scores, flat) == NUM_STAGES


def test_searches_with_too_few_scores_are_no_prior() -> None:
    few = (EVERYWHERE[: LEAST_SCORES - 1], [0.5] * (LEAST_SCORES - 1))
    assert Prior.of_searches([few], space=SPACE, seed=0) is None
    assert Prior.of_searches([], space=SPACE, seed=0) is None


def test_recipes_outside_the_space_are_moved_into_it() -> None:
    beyond = [recipe.model_copy(update={"learning_rate": 10.0, "batch_size": 999}) for recipe in EVERYWHERE]
    prior = Prior.of_searches([(beyond, [deeper_is_better(recipe) for recipe in beyond])], space=SPACE, seed=0)
    assert prior is not None
    assert np.isfinite(prior.expect(DEPTHS)).all()
