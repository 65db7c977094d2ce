"""Finalists race on fresh re-splits: who falls behind leaves, and only a clear win makes a recipe a group's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.search.racing import Finalist, Race, decide

POOLED = Finalist(key="pooled", role="pooled", seconds=2.0)
OWN = Finalist(key="own", role="group", seconds=2.0)
CHEAP = Finalist(key="cheap", role="fixed_rule", seconds=1.0)


def a_race(*finalists: Finalist, noise: float = 0.01, **scores: list[float | None]) -> Race:
    return Race(
        finalists=finalists,
        scores={(key, number): score for key, found in scores.items() for number, score in enumerate(found)},
        noise=noise,
        overlap=0.1,
    )


def test_a_round_is_asked_for_whole_and_then_the_next() -> None:
    race = a_race(POOLED, OWN)
    assert [(finalist.key, number) for finalist, number in race.next_runs()] == [("pooled", 0), ("own", 0)]
    begun = a_race(POOLED, OWN, pooled=[0.8])
    assert [(finalist.key, number) for finalist, number in begun.next_runs()] == [("own", 0)]
    played = a_race(POOLED, OWN, pooled=[0.8], own=[0.8])
    assert {number for _, number in played.next_runs()} == {1}


def test_who_is_far_behind_or_failed_leaves_early() -> None:
    race = a_race(POOLED, OWN, CHEAP, pooled=[0.8], own=[0.7], cheap=[None])
    assert race.survivors == [POOLED]
    assert race.next_runs() == []


def test_a_race_ends_after_its_last_round() -> None:
    race = a_race(POOLED, OWN, pooled=[0.8] * 5, own=[0.8] * 5)
    assert race.next_runs() == [] and race.rounds == 5


def test_the_order_in_which_runs_come_back_does_not_matter() -> None:
    scores: dict[tuple[str, int], float | None] = {
        ("pooled", 0): 0.80, ("own", 0): 0.81, ("pooled", 1): 0.80, ("own", 1): 0.83,
    }  # fmt: skip
    races = [
        Race(finalists=[POOLED, OWN], scores=dict(order), noise=0.01, overlap=0.1)
        for order in (list(scores.items()), list(reversed(scores.items())))
    ]
    assert races[0].survivors == races[1].survivors and races[0].rounds == races[1].rounds == 2


def test_more_re_splits_narrow_the_error_but_shared_samples_keep_it_from_vanishing() -> None:
    few = a_race(POOLED, OWN, pooled=[0.8], own=[0.8])
    many = a_race(POOLED, OWN, pooled=[0.8] * 5, own=[0.8] * 5)
    assert many.compare("own", "pooled")[1] < few.compare("own", "pooled")[1]
    assert few.compare("own", "pooled")[1] == pytest.approx(0.01 * math.sqrt(1 + 0.1))
    assert a_race(POOLED, OWN).compare("own", "pooled")[1] == math.inf


def test_a_clear_win_makes_the_recipe_the_groups_own() -> None:
    verdict = decide(a_race(POOLED, OWN, pooled=[0.70, 0.71], own=[0.80, 0.81]), incumbent="pooled")
    assert verdict is not None and verdict.finalist == OWN
    assert verdict.score == pytest.approx(0.805) and verdict.runs == 2 and verdict.standard_error > 0
    assert "better than the pooled recipe by 10.0 points" in verdict.reason


def test_a_win_within_the_noise_does_not() -> None:
    verdict = decide(a_race(POOLED, OWN, pooled=[0.80, 0.81], own=[0.81, 0.82]), incumbent="pooled")
    assert verdict is not None and verdict.finalist == POOLED


def test_within_one_standard_error_the_cheaper_recipe_wins() -> None:
    race = a_race(POOLED, CHEAP, noise=0.02, pooled=[0.80, 0.80, 0.80], cheap=[0.80, 0.79, 0.80])
    verdict = decide(race, incumbent="pooled")
    assert verdict is not None and verdict.finalist == CHEAP and "cheaper" in verdict.reason


def test_without_a_run_of_the_incumbent_there_is_no_verdict() -> None:
    assert decide(a_race(POOLED, OWN, own=[0.9]), incumbent="pooled") is None


def test_equal_recipes_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(0)
    wins = 0
    for _ in range(400):
        scores = rng.normal(0.8, 0.02 / math.sqrt(2), (2, 3))
        race = a_race(POOLED, OWN, noise=0.02, pooled=list(scores[0]), own=list(scores[1]))
        verdict = decide(race, incumbent="pooled")
        wins += verdict is not None and verdict.finalist == OWN
    assert wins / 400 < 0.04
