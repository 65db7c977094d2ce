"""Among drawn configurations the one is taken that promises most for its cost."""

from __future__ import annotations

from search_examples import NUM_STAGES, a_search

from orchestrator.records import Hyperparameters
from orchestrator.search.promise import most_promising
from orchestrator.search.space import SearchSpace

SPACE = SearchSpace.from_config(a_search().space, NUM_STAGES)


def a_recipe(freeze_depth: int, learning_rate: float = 1e-2, epochs: int = 4) -> Hyperparameters:
    return SPACE.complete({"freeze_depth": freeze_depth, "learning_rate": learning_rate, "epochs": epochs})


# Deeper is better, and every depth has been seen.
TRIED = [a_recipe(depth, rate) for depth in range(NUM_STAGES + 1) for rate in (1e-3, 1e-2)]
SCORES = [0.5 + 0.05 * recipe.freeze_depth for recipe in TRIED]


def pick(candidates: list[Hyperparameters], seconds: list[float], *, budget_left: float = 1.0) -> int:
    return most_promising(candidates, seconds, TRIED, SCORES, space=SPACE, budget_left=budget_left, seed=0)


def test_of_equal_promise_the_cheaper_is_taken() -> None:
    same = [a_recipe(5, 3e-2), a_recipe(5, 3e-2)]
    assert pick(same, [10.0, 1.0]) == 1
    assert pick(same, [1.0, 10.0]) == 0


def test_of_equal_cost_the_more_promising_is_taken() -> None:
    assert pick([a_recipe(0, 3e-2), a_recipe(5, 3e-2)], [1.0, 1.0]) == 1


def test_cost_counts_less_towards_the_end() -> None:
    candidates, seconds = [a_recipe(4, 3e-2), a_recipe(5, 3e-2)], [1.0, 2.0]
    assert pick(candidates, seconds, budget_left=0.0) == 1


def test_before_anything_is_known_the_cheapest_is_taken() -> None:
    candidates = [a_recipe(0), a_recipe(5)]
    chosen = most_promising(candidates, [9.0, 2.0], [], [], space=SPACE, budget_left=1.0, seed=0)
    assert chosen == 1


def test_the_choice_is_deterministic() -> None:
    candidates = [a_recipe(depth, 2e-2) for depth in range(NUM_STAGES + 1)]
    assert len({pick(candidates, [1.0] * len(candidates)) for _ in range(3)}) == 1


def test_equal_scores_are_no_obstacle() -> None:
    chosen = most_promising(
        [a_recipe(0), a_recipe(5)], [1.0, 2.0], TRIED, [0.5] * len(TRIED), space=SPACE, budget_left=1.0, seed=0
    )
    assert chosen in (0, 1)
