"""The policy as a pure function: no group starves, no budget is exceeded, cheap trials come first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.search.spending import GroupState, Move, Spending, next_move


def a_group(name: str = "low", **changes: object) -> GroupState:
    return replace(GroupState(group=name, queue=[], running=0, values=[], seconds=0.0), **changes)


class MadeUpSearch:
    """Groups whose trials cost and score by a seeded rule, driven by the policy with several workers at a time."""

    def __init__(self, spending: Spending, *, costs: dict[str, float], flat: frozenset[str] = frozenset()) -> None:
        self.spending = spending
        self.costs = costs
        self.flat = flat
        self.rng = np.random.default_rng(0)
        self.groups = {name: a_group(name, queue=[cost, 2 * cost]) for name, cost in costs.items()}
        self.moves: list[Move] = []
        self.elapsed_s = 0.0

    def run(self, workers: int = 2) -> None:
        running: list[tuple[str, float]] = []
        while True:
            while len(running) < workers and (move := self._next()) is not None:
                running.append(self._start(move))
            if not running:
                return
            self._end(*running.pop(0))

    def _next(self) -> Move | None:
        return next_move(list(self.groups.values()), self.spending, elapsed_s=self.elapsed_s)

    def _start(self, move: Move) -> tuple[str, float]:
        self.moves.append(move)
        group = self.groups[move.group]
        cost = group.queue[0] if move.origin == "listed" else self.costs[move.group] * self.rng.uniform(0.5, 2)
        queue = list(group.queue[1:]) if move.origin == "listed" else list(group.queue)
        changes = {"queue": queue, "running": group.running + 1, "seconds": group.seconds + cost}
        self.groups[move.group] = replace(group, **changes)
        return move.group, cost

    def _end(self, name: str, cost: float) -> None:
        group = self.groups[name]
        # Each trial of a group that is not flat is a little better than the one before.
        value = 0.5 if name in self.flat else 0.5 + 0.01 * len(group.values)
        self.elapsed_s += cost / 2
        self.groups[name] = replace(group, running=group.running - 1, values=[*group.values, value])

    def started(self) -> dict[str, int]:
        return {name: group.started for name, group in self.groups.items()}


def test_lists_come_first_and_of_them_the_cheapest_trial() -> None:
    groups = [a_group("slow", queue=[5.0]), a_group("quick", queue=[1.0, 9.0])]
    move = next_move(groups, Spending(num_trials=20), elapsed_s=0)
    assert move == Move(group="quick", origin="listed", seconds=1.0)


def test_every_group_starts_before_any_works_off_its_list() -> None:
    groups = [a_group("small", queue=[1.0] * 5, values=[0.5]), a_group("large", queue=[10.0] * 5)]
    assert next_move(groups, Spending(num_trials=6), elapsed_s=1) == Move(group="large", origin="listed", seconds=10.0)


def test_a_list_longer_than_the_share_takes_nothing_from_the_others() -> None:
    search = MadeUpSearch(Spending(num_trials=6), costs={"small": 1.0, "large": 10.0})
    search.groups = {name: replace(group, queue=[group.queue[0]] * 5) for name, group in search.groups.items()}
    search.run()
    assert sorted(search.started().values()) == [2, 3]


def test_a_closed_group_counts_and_gets_nothing() -> None:
    groups = [a_group("closed", values=[0.5] * 6, is_closed=True), a_group("open", queue=[9.0] * 4)]
    assert next_move(groups, Spending(num_trials=10), elapsed_s=0) == Move(group="open", origin="listed", seconds=9.0)
    assert next_move(groups, Spending(num_trials=7), elapsed_s=0) is None


def test_all_groups_get_their_list_before_any_gets_more() -> None:
    search = MadeUpSearch(Spending(num_trials=40), costs={"low": 1.0, "high": 30.0})
    search.run()
    assert [move.origin for move in search.moves[:4]] == ["listed"] * 4
    assert {move.group for move in search.moves[:4]} == {"low", "high"}


def test_no_group_starves_however_dear_it_is() -> None:
    spending = Spending(num_trials=60, floor=6)
    search = MadeUpSearch(spending, costs={"cheap": 1.0, "dear": 1000.0, "middle": 10.0})
    search.run()
    assert min(search.started().values()) >= 6


def test_equal_groups_get_equal_shares_by_cost() -> None:
    search = MadeUpSearch(Spending(num_trials=80), costs={"a": 1.0, "b": 1.0})
    search.run()
    a, b = search.started().values()
    assert abs(a - b) <= 4


def test_a_group_that_stagnates_leaves_its_share_to_those_that_do_not() -> None:
    spending = Spending(num_trials=100, floor=8, patience=5)
    search = MadeUpSearch(spending, costs={"flat": 1.0, "rising": 1.0}, flat=frozenset({"flat"}))
    search.run()
    started = search.started()
    assert started["flat"] <= 12 and started["rising"] >= 60
    assert sum(started.values()) == spending.search_trials


def test_when_all_stagnate_the_budget_is_still_used() -> None:
    spending = Spending(num_trials=50)
    search = MadeUpSearch(spending, costs={"a": 1.0, "b": 1.0}, flat=frozenset({"a", "b"}))
    search.run()
    assert sum(search.started().values()) == spending.search_trials


@pytest.mark.parametrize("num_trials", [1, 4, 5, 23])
def test_the_trials_never_exceed_the_budget_and_leave_a_fifth_to_the_race(num_trials: int) -> None:
    spending = Spending(num_trials=num_trials)
    search = MadeUpSearch(spending, costs={"a": 1.0, "b": 2.0})
    search.run(workers=3)
    assert len(search.moves) == spending.search_trials == num_trials - num_trials // 5
    assert spending.race_trials + spending.search_trials == num_trials


def test_no_trial_starts_that_does_not_fit_the_seconds_left() -> None:
    spending = Spending(num_trials=1000, seconds=100.0)
    groups = [a_group(queue=[50.0])]
    assert next_move(groups, spending, elapsed_s=29.0) is not None
    assert next_move(groups, spending, elapsed_s=31.0) == Move(group="low", origin="sampler", seconds=49.0)
    assert next_move(groups, spending, elapsed_s=80.0) is None


def test_seconds_of_work_bound_all_trials_together() -> None:
    spending = Spending(num_trials=1000, work_seconds=100.0)
    search = MadeUpSearch(spending, costs={"a": 3.0, "b": 5.0})
    search.run()
    # What a sampled trial costs is told to the sampler as a bound; here the last one may overshoot by itself.
    assert 70 <= sum(group.seconds for group in search.groups.values()) <= 80 + 10


def test_the_same_states_give_the_same_moves() -> None:
    searches = [MadeUpSearch(Spending(num_trials=40), costs={"a": 1.0, "b": 3.0, "c": 2.0}) for _ in range(2)]
    for search in searches:
        search.run()
    assert searches[0].moves == searches[1].moves
