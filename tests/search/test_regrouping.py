import pytest

from orchestrator.records import ArmGain, Move
from orchestrator.search.regrouping import KnownGroup, plan_regrouping

LOW = KnownGroup(name="low", num_train={"a": 100, "b": 100}, seconds=20.0)
HIGH = KnownGroup(name="high", num_train={"c": 200, "d": 50, "e": 50}, seconds=60.0)


def a_move(subset: str, origin: str, destination: str, gain: float = -0.2) -> Move:
    place = ArmGain(name=destination, accuracy=0.9, gain=gain, gain_interval=(gain - 0.1, gain + 0.1))
    is_new = destination.startswith("only-")
    return Move(subset=subset, origin=origin, destination=destination, is_new=is_new, place=place)


def test_a_move_trains_the_group_that_it_leaves_and_the_one_that_it_joins() -> None:
    plan = plan_regrouping([a_move("a", "low", "high")], [LOW, HIGH], budget_left_s=None)
    assert [(group.name, group.subsets, group.recipe_of) for group in plan.groups] == [
        ("low", ("b",), "low"),
        ("high", ("a", "c", "d", "e"), "high"),
    ]
    assert [group.predicted_s for group in plan.groups] == pytest.approx([100 * 0.1, 400 * 0.2])
    assert (len(plan.moves), plan.left_out) == (1, ())


def test_a_group_of_its_own_takes_the_recipe_of_the_group_that_is_left() -> None:
    plan = plan_regrouping([a_move("d", "high", "only-d")], [LOW, HIGH], budget_left_s=None)
    assert [(group.name, group.subsets, group.recipe_of) for group in plan.groups] == [
        ("high", ("c", "e"), "high"),
        ("only-d", ("d",), "high"),
    ]
    assert plan.groups[1].predicted_s == pytest.approx(50 * 0.2)


def test_a_group_that_all_leave_is_not_trained() -> None:
    moves = [a_move("a", "low", "only-a"), a_move("b", "low", "high")]
    plan = plan_regrouping(moves, [LOW, HIGH], budget_left_s=None)
    assert [group.name for group in plan.groups] == ["high", "only-a"]


def test_subsets_may_change_places() -> None:
    plan = plan_regrouping([a_move("a", "low", "high"), a_move("c", "high", "low")], [LOW, HIGH], budget_left_s=None)
    assert {group.name: group.subsets for group in plan.groups} == {"low": ("b", "c"), "high": ("a", "d", "e")}


def test_the_budget_goes_to_the_moves_that_gain_most() -> None:
    # Alone: 10 + 80 seconds, and 50 + 10.
    moves = [a_move("a", "low", "high", gain=-0.1), a_move("d", "high", "only-d", gain=-0.5)]
    plan = plan_regrouping(moves, [LOW, HIGH], budget_left_s=65.0)
    assert ([move.subset for move in plan.moves], [move.subset for move in plan.left_out]) == (["d"], ["a"])
    assert sum(group.predicted_s for group in plan.groups) == pytest.approx(60)
    nothing = plan_regrouping(moves, [LOW, HIGH], budget_left_s=0.0)
    assert (nothing.moves, nothing.groups, len(nothing.left_out)) == ((), (), 2)


def test_without_moves_nothing_is_trained() -> None:
    assert plan_regrouping([], [LOW, HIGH], budget_left_s=None).groups == ()
