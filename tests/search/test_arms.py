import pytest

from orchestrator.records import Hyperparameters, Recipe
from orchestrator.search.arms import affordable_epochs, pooled_recipe, trains_alike


def a_recipe(group: str, learning_rate: float, origin: str = "group") -> Recipe:
    chosen = Hyperparameters(freeze_depth=3, learning_rate=learning_rate, epochs=4)
    return Recipe(
        group=group, trial_id=f"{group}-0", metric="val_accuracy", value=0.8, hyperparameters=chosen, origin=origin
    )


COUNTS = {"low": 100, "medium": 150, "high": 200}


def test_the_pooled_model_takes_the_recipe_that_is_best_over_all_groups() -> None:
    recipes = [a_recipe("low", 0.1), a_recipe("medium", 0.2, origin="pooled"), a_recipe("high", 0.1)]
    assert pooled_recipe(recipes, COUNTS).learning_rate == 0.2


def test_else_it_takes_the_recipe_that_most_images_are_trained_by() -> None:
    recipes = [a_recipe("low", 0.1), a_recipe("medium", 0.1), a_recipe("high", 0.3)]
    assert pooled_recipe(recipes, COUNTS).learning_rate == 0.1
    assert pooled_recipe(recipes, COUNTS | {"high": 300}).learning_rate == 0.3
    assert pooled_recipe(recipes, COUNTS | {"high": 250}).learning_rate == 0.1


@pytest.mark.parametrize(
    ("epochs", "cost", "expected"), [(12, 1.0, 12), (12, 4.0, 3), (12, 0.5, 24), (2, 9.0, 1), (10, 3.0, 3)]
)
def test_dearer_epochs_are_fewer_at_equal_cost(epochs: int, cost: float, expected: int) -> None:
    assert affordable_epochs(epochs, cost) == expected


def test_recipes_train_alike_from_the_same_depth_whatever_is_done_to_weights() -> None:
    one = a_recipe("low", 0.1).hyperparameters
    other = one.model_copy(update={"learning_rate": 0.5, "epochs": 9, "regularizer": "l2_sp", "ema_decay": 0.9})
    assert trains_alike(one, other)
    assert not trains_alike(one, one.model_copy(update={"freeze_depth": 0}))
    assert not trains_alike(one, one.model_copy(update={"head": "prototype"}))
