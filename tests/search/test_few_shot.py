"""Groups of few images a class get other defaults, and what the file names stays."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.config import FineTuneConfig, HeadName, Range, SearchConfig
from orchestrator.config.few_shot import FINETUNE_KEYS, SEARCH_KEYS, SPACE_KEYS
from orchestrator.records import Hyperparameters
from orchestrator.search.few_shot import GroupCounts, Tuning, tuning_of
from orchestrator.search.shared_list import shared_list
from orchestrator.search.space import SearchSpace

NUM_STAGES = 6
FEW = [4, 6, 5]


def decide(
    counts: list[int] = FEW,
    *,
    units: int = 100,
    finetune: dict[str, object] | None = None,
    search: dict[str, object] | None = None,
    heads: tuple[HeadName, ...] = ("prototype", "cosine"),
    pulls_features: bool = False,
) -> Tuning:
    return tuning_of(
        FineTuneConfig.model_validate(finetune or {}),
        SearchConfig.model_validate(search or {}),
        GroupCounts(by_class=np.array(counts, dtype=np.int64), num_units=lambda: units),
        num_stages=NUM_STAGES,
        heads=heads,
        pulls_features=pulls_features,
    )


def space_of(tuning: Tuning) -> SearchSpace:
    return SearchSpace.from_config(tuning.search.space, NUM_STAGES, tuning.finetune)


def test_few_images_change_the_defaults() -> None:
    found = decide()
    assert found.few_shot is not None
    assert (found.few_shot.images_per_class, found.few_shot.threshold, found.few_shot.folds) == (5.0, 6, 5)
    assert found.few_shot.changed == ["folds", "freeze_depth", "head", "learning_rate", "weight_decay"]
    # Those that a resolved file leaves open.
    assert set(found.few_shot.changed) == {*FINETUNE_KEYS, *SEARCH_KEYS, *SPACE_KEYS}
    space = found.search.space
    assert space.freeze_depth == [NUM_STAGES] and space.head == ["prototype", "cosine"]
    assert isinstance(space.learning_rate, Range) and space.learning_rate.high < SearchConfig().space.learning_rate.high
    assert found.finetune.weight_decay > 0 and found.search.folds == 5


@pytest.mark.parametrize("counts", [[6, 6, 6], [3, 6, 7], [2, 50, 500]])
def test_from_the_threshold_on_nothing_changes(counts: list[int]) -> None:
    search, finetune = SearchConfig(), FineTuneConfig()
    given = GroupCounts(by_class=np.array(counts), num_units=pytest.fail)
    found = tuning_of(finetune, search, given, num_stages=6, heads=["prototype"])
    assert found.search is search and found.finetune is finetune and found.few_shot is None


@pytest.mark.parametrize(("heads", "searched"), [(("cosine",), ["cosine"]), (("linear",), None)])
def test_where_prototypes_do_not_go_only_the_head_is_another(
    heads: tuple[HeadName, ...], searched: list[HeadName] | None
) -> None:
    found, usual = decide(heads=heads), decide()
    assert found.search.space.head == searched and found.few_shot is not None and usual.few_shot is not None
    assert ("head" in found.few_shot.changed) == (searched is not None)
    assert {*found.few_shot.changed, "head"} == set(usual.few_shot.changed)
    assert found.finetune == usual.finetune and found.search.folds == usual.search.folds
    as_usual = found.search.space.model_copy(update={"head": usual.search.space.head})
    assert as_usual == usual.search.space
    listed = shared_list(space_of(found), num_stages=NUM_STAGES, heads=3, others=3, seed=0)
    assert {recipe.head for recipe in listed} == {heads[0]}


def test_stages_stay_free_where_a_penalty_pulls_features() -> None:
    found, usual = decide(heads=("cosine",), pulls_features=True), decide(heads=("cosine",))
    assert found.search.space.freeze_depth is None and found.few_shot is not None and usual.few_shot is not None
    assert {*found.few_shot.changed, "freeze_depth"} == set(usual.few_shot.changed) != set(found.few_shot.changed)


def test_the_threshold_can_be_moved_and_turned_off() -> None:
    assert decide([20, 20], search={"few_shot_threshold": 21}).few_shot is not None
    assert decide([1, 1], search={"few_shot_threshold": 0}).few_shot is None


def test_classes_without_training_images_do_not_count() -> None:
    assert decide([0, 0, 0, 12, 14]).few_shot is None


@pytest.mark.parametrize(
    ("finetune", "search"),
    [
        # Named at their defaults, too: to name a key is to choose.
        (
            {"head": "linear", "weight_decay": 0.0},
            {"folds": 1, "space": {"freeze_depth": [2, 6], "learning_rate": [0.1]}},
        ),
        ({}, {"folds": 3, "space": {"freeze_depth": [3], "head": ["linear"], "weight_decay": [0.0, 0.1]}}),
    ],
)
def test_what_the_file_names_stays(finetune: dict[str, object], search: dict[str, object]) -> None:
    found = decide(finetune=finetune, search=search)
    assert found.finetune == FineTuneConfig.model_validate(finetune)
    given = SearchConfig.model_validate(search)
    assert found.search.folds == given.folds and found.search.space.freeze_depth == given.space.freeze_depth
    assert found.search.space.head == given.space.head and found.few_shot is not None
    assert found.few_shot.changed == ([] if "learning_rate" in given.space.model_fields_set else ["learning_rate"])


@pytest.mark.parametrize(
    ("counts", "units", "folds"), [([1, 1], 100, 2), ([3, 3, 3], 100, 3), ([5, 5], 4, 4), ([5, 5], 1, 1)]
)
def test_there_are_images_for_every_fold(counts: list[int], units: int, folds: int) -> None:
    assert decide(counts, units=units).search.folds == folds


def test_trials_of_several_workers_have_no_folds() -> None:
    found = decide(search={"num_workers_per_trial": 2})
    assert found.search.folds == 1 and found.few_shot is not None and "folds" not in found.few_shot.changed


def test_a_training_in_one_pass_is_one_configuration() -> None:
    space = space_of(decide())
    base = {"freeze_depth": NUM_STAGES, "head": "prototype"}
    first = space.complete({**base, "learning_rate": 2e-4, "epochs": 20})
    assert first == space.complete({**base, "learning_rate": 9e-4, "epochs": 50})
    trained = space.complete({**base, "head": "cosine", "learning_rate": 9e-4, "epochs": 50})
    assert (trained.learning_rate, trained.epochs) == (9e-4, 50)


def test_the_list_begins_with_prototypes_and_goes_on_with_rates() -> None:
    listed = shared_list(space_of(decide()), num_stages=NUM_STAGES, heads=4, others=4, seed=0)
    assert [recipe.head for recipe in listed] == ["prototype", "cosine", "cosine", "cosine"]
    assert len({recipe.learning_rate for recipe in listed[1:]}) == 3
    assert all(recipe.freeze_depth == NUM_STAGES for recipe in listed)


def test_a_free_stage_below_prototypes_is_trained_at_its_rate() -> None:
    recipe = Hyperparameters(freeze_depth=3, learning_rate=1e-3, epochs=5, head="prototype")
    assert not recipe.has_one_pass(NUM_STAGES)
