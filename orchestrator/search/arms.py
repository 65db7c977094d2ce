"""Chooses by what recipes the arms are trained that tell what transfer is worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from orchestrator.records import Hyperparameters, Recipe


def pooled_recipe(recipes: Sequence[Recipe], num_train: Mapping[str, int]) -> Hyperparameters:
    """Choose the recipe for one model of all groups' samples; `num_train` counts training images by group.

    Of those that the search found best over all groups of one kind (origin `pooled`), or of all where there is none:
    the one whose groups have the most training images together, of equals the first.
    """
    candidates = [recipe for recipe in recipes if recipe.origin == "pooled"] or recipes
    images: defaultdict[str, int] = defaultdict(int)
    for recipe in candidates:
        images[recipe.hyperparameters.model_dump_json()] += num_train[recipe.group]
    return max(candidates, key=lambda recipe: images[recipe.hyperparameters.model_dump_json()]).hyperparameters


def affordable_epochs(epochs: int, epoch_cost: float) -> int:
    """Give how many epochs take as long as `epochs` cheaper ones, when each costs `epoch_cost` times as much.

    At least one.
    """
    return max(1, round(epochs / epoch_cost))


def trains_alike(one: Hyperparameters, other: Hyperparameters) -> bool:
    """Tell whether epochs of two recipes take the same: both train the same network from the same depth, in one way.

    What is done to weights and not to images counts for nothing: rates, penalties, means of weights, statistics.
    """
    return (one.freeze_depth, one.head, one.batch_size) == (other.freeze_depth, other.head, other.batch_size)
