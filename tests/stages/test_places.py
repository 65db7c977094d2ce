"""Where subsets fare better is found among several groups, and what was trained again is kept or undone: no cluster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_experiments import experiment_dict

from orchestrator.config import ExperimentConfig
from orchestrator.evaluation.answers import unpack
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import ArmGain, Move, RegroupedModel, Regrouping, SubsetGain, SubsetTransfer
from orchestrator.search.regrouping import KnownGroup, RegroupingPlan, plan_regrouping
from orchestrator.stages.places import find_moves
from orchestrator.stages.settling import is_no_worse, reason_of, settle
from orchestrator.stages.subjects import Subject

IMAGES = 60
KNOWN = (
    KnownGroup(name="low", num_train={"a": 100, "b": 100}, seconds=20.0),
    KnownGroup(name="high", num_train={"c": 200, "d": 50}, seconds=50.0),
)


def a_config(**sections: object) -> ExperimentConfig:
    return validate_experiment(experiment_dict("/data", "/runs", **sections))


def right(accuracy: float) -> NDArray[np.bool_]:
    """Answers of which the first are right: more accurate models are right on the same images, and on more."""
    return np.arange(IMAGES) < accuracy * IMAGES


def a_subject(subset: str, group: str, own: float, **arms: float) -> Subject:
    return Subject(
        subset=subset,
        group=group,
        model=f"groups/{group}/model",
        together={split: [""] * IMAGES for split in ("val", "test")},
        own={split: right(own) for split in ("val", "test")},
        arms={name: {split: right(accuracy) for split in ("val", "test")} for name, accuracy in arms.items()},
    )


def moves_of(
    *subjects: Subject, elsewhere: Mapping[str, Mapping[str, float]] | None = None, **sections: object
) -> dict[str, Move]:
    answers = {
        group: {subset: right(accuracy) for subset, accuracy in found.items()}
        for group, found in (elsewhere or {}).items()
    }
    return {move.subset: move for move in find_moves(a_config(**sections), subjects, answers)}


def test_of_several_places_the_one_that_serves_best_is_taken() -> None:
    subjects = [
        a_subject("a", "low", 0.5, subset_only=0.7, pooled=1.0),
        a_subject("b", "low", 0.5, subset_only=0.9),
        a_subject("c", "high", 0.8, subset_only=0.82),
    ]
    elsewhere = {"high": {"a": 0.95, "b": 0.6}, "low": {"c": 0.3}}
    found = moves_of(*subjects, elsewhere=elsewhere)
    assert {name: (move.origin, move.destination, move.is_new) for name, move in found.items()} == {
        "a": ("low", "high", False),
        "b": ("low", "only-b", True),
    }
    assert found["a"].place.accuracy == pytest.approx(0.95) and not found["b"].without_source


def test_a_groups_model_that_does_not_know_a_subset_is_no_place_for_it() -> None:
    assert not moves_of(a_subject("a", "low", 0.5), elsewhere={"high": {"b": 1.0}})


def test_with_a_source_a_place_is_the_group_without_it_and_none_other_loses_it() -> None:
    source = {"source": {"uri": "/source"}}
    subjects = [
        a_subject("a", "low", 0.4, subset_only=0.6, target_only=0.9),
        a_subject("b", "low", 0.4, subset_only=0.9, target_only=0.6),
        a_subject("c", "high", 0.4, target_only=0.6),
    ]
    found = moves_of(*subjects, elsewhere={"low": {"c": 0.9}, "high": {"a": 0.5}}, **source)
    assert {name: (move.destination, move.is_new, move.without_source) for name, move in found.items()} == {
        "a": ("low-without-source", True, True),
        # The arm that speaks for it was trained without the source, too.
        "b": ("only-b", True, True),
        "c": ("low", False, False),
    }
    assert not moves_of(a_subject("a", "low", 0.9, target_only=0.4), **source)


def test_subsets_that_leave_a_group_for_it_without_the_source_are_trained_together() -> None:
    subjects = [a_subject(name, "low", 0.4, target_only=0.9) for name in ("a", "b")]
    moves = moves_of(*subjects, a_subject("c", "high", 0.4), elsewhere={"low": {"c": 0.9}}, source={"uri": "/source"})
    plan = plan_regrouping(list(moves.values()), KNOWN, budget_left_s=None)
    assert [(group.name, group.subsets, group.recipe_of, group.without_source) for group in plan.groups] == [
        ("low", ("c",), "low", False),
        ("high", ("d",), "high", False),
        ("low-without-source", ("a", "b"), "low", True),
    ]
    assert plan.groups[2].predicted_s == pytest.approx(20.0)


def a_gain(subset: str, validation: float | None) -> SubsetGain:
    interval = None if validation is None else (validation - 0.1, validation + 0.1)
    return SubsetGain(
        subset=subset,
        validation_gain=validation,
        validation_interval=interval,
        test_gain=validation,
        test_interval=interval,
    )


@pytest.mark.parametrize(
    ("gains", "kept"),
    [
        ({"a": 0.5, "b": -0.2, "c": -0.2}, True),
        ({"a": 0.5, "b": -0.3, "c": -0.3}, False),
        # One image won and one lost is no loss, whatever the rounding.
        ({"a": 1 / IMAGES, "b": -1 / IMAGES, "c": None}, True),
        ({"a": 0.0, "b": 0.0, "c": -1 / IMAGES}, False),
    ],
)
def test_new_models_are_kept_where_all_their_subsets_together_lose_nothing(
    gains: dict[str, float | None], kept: bool
) -> None:
    subjects = [a_subject(name, "low", 0.5) for name in ("a", "b", "c", "d")]
    assert is_no_worse({name: a_gain(name, gain) for name, gain in gains.items()}, subjects) == kept


def a_verdict(subset: str, group: str) -> SubsetTransfer:
    return SubsetTransfer(
        subset=subset,
        group=group,
        verdict="hurts",
        test=None,
        validation=None,
        reason="verdicts are only reported",
        model=f"groups/{group}/model",
    )


def a_regrouping(*, is_kept: bool, failure: str = "") -> tuple[RegroupingPlan, Regrouping]:
    place = ArmGain(name="high", accuracy=0.9, gain=-0.4, gain_interval=(-0.5, -0.3))
    move = Move(subset="a", origin="low", destination="high", is_new=False, place=place)
    plan = plan_regrouping([move], KNOWN, budget_left_s=None)
    models = [
        RegroupedModel(
            group=group.name,
            subsets=list(group.subsets),
            recipe_of=group.recipe_of,
            predicted_s=group.predicted_s,
            seconds=1.0,
            model=f"regrouped/{group.name}/model",
            weights_digest=f"digest of {group.name}",
        )
        for group in plan.groups
    ]
    reason = reason_of(plan, is_kept=is_kept, failure=failure)
    regrouping = Regrouping(
        moves=list(plan.moves),
        left_out=[],
        models=[] if failure else models,
        budget_left_s=None,
        gains=[],
        is_kept=is_kept,
        reason=reason,
    )
    return plan, regrouping


def test_every_subset_of_the_groups_concerned_gets_its_new_model() -> None:
    _, regrouping = a_regrouping(is_kept=True)
    settled = {
        name: settle(a_verdict(name, group), regrouping, a_gain(name, 0.1), right(0.6))
        for name, group in (("a", "low"), ("b", "low"), ("c", "high"))
    }
    assert {name: (found.action, found.taken, found.model) for name, found in settled.items()} == {
        "a": ("moved", "high", "regrouped/high/model"),
        "b": ("retrained", "low", "regrouped/low/model"),
        "c": ("retrained", "high", "regrouped/high/model"),
    }
    assert settled["a"].weights_digest == "digest of high" and settled["a"].gain == a_gain("a", 0.1)
    answers = settled["c"].test_answers
    assert answers is not None and unpack(answers).tolist() == right(0.6).tolist()


def test_a_subset_whose_own_move_did_not_fit_is_not_said_to_have_moved() -> None:
    _, regrouping = a_regrouping(is_kept=True)
    left_out = regrouping.moves[0].model_copy(update={"subset": "b", "destination": "only-b", "is_new": True})
    regrouping = regrouping.model_copy(update={"left_out": [left_out]})
    found = settle(a_verdict("b", "low"), regrouping, a_gain("b", 0.1), right(0.6))
    assert (found.action, found.taken) == ("retrained", "low")
    assert found.reason == "its group was trained again; its own move did not fit the search's budget"
    undone = settle(a_verdict("b", "low"), regrouping.model_copy(update={"is_kept": False}), None, None)
    assert undone.reason == regrouping.reason


def test_what_is_worse_is_undone_and_every_subset_keeps_its_groups_model() -> None:
    _, regrouping = a_regrouping(is_kept=False)
    moved, sibling = (settle(a_verdict(name, "low"), regrouping, a_gain(name, -0.1), right(0.4)) for name in ("a", "b"))
    for found in (moved, sibling):
        assert (found.action, found.taken, found.model) == ("kept", None, "groups/low/model")
        # What the new model would have gained is known all the same.
        assert found.gain is not None and found.gain.validation_gain == -0.1 and found.test_answers is None
    assert "undone: on the validation images" in moved.reason
    assert "no validation images" in sibling.reason


def test_what_cannot_be_trained_is_undone_with_the_reason() -> None:
    _, regrouping = a_regrouping(is_kept=False, failure="the loss is not finite")
    assert settle(a_verdict("a", "low"), regrouping, None, None).reason == "undone: the loss is not finite"
