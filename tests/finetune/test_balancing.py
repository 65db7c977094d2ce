from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from finetune_examples import ArraySamples, a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.finetune.balancing import balance_of
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.loop import fine_tune
from orchestrator.records import Balance

CLASSES = ("cat", "dog", "owl", "yak")
# No image of the owl is for training.
LABELS = np.array([0] * 20 + [1] * 8 + [3] * 2, dtype=np.int64)
BALANCED = some_hyperparameters(balanced=True, batch_size=8)


def test_a_balanced_epoch_says_what_it_repeats_and_leaves_out() -> None:
    assert balance_of(LABELS, CLASSES, BALANCED, seed=3, num_stages=3) == Balance(
        num_classes=3,
        num_repeated=2,
        most_repeated="yak",
        most_repeated_images=2,
        times_shown=5.0,
        num_images=30,
        num_left_out=10,
    )


def test_what_is_said_is_what_the_training_takes(tiny_classifier: Callable[..., Classifier]) -> None:
    whole = some_samples(24)
    chosen = np.flatnonzero((whole.labels > 0) | (np.arange(24) < 12))
    train = ArraySamples(whole.pixels[chosen], whole.labels[chosen])
    run = some_hyperparameters(balanced=True, freeze_depth=0, epochs=1)
    settings = some_settings(loader_seed=5)
    fine_tune(tiny_classifier(), a_spec(), train, some_samples(6, seed=1), run, settings)
    said = balance_of(train.labels, CLASSES, run, seed=settings.order_seed, num_stages=3)
    times = np.bincount(train.taken, minlength=len(train))
    rarest = train.labels == CLASSES.index(said.most_repeated if said else "")
    assert said is not None and said.most_repeated == "cat"
    assert (rarest.sum(), times[rarest].mean()) == (said.most_repeated_images, said.times_shown)
    assert (times == 0).sum() == said.num_left_out > 0


def test_classes_of_one_size_repeat_nothing() -> None:
    found = balance_of(np.repeat([0, 1, 2], 10), CLASSES, BALANCED, seed=3, num_stages=3)
    assert found is not None and (found.num_repeated, found.num_left_out, found.times_shown) == (0, 0, 1.0)


def test_of_several_tasks_the_first_is_balanced() -> None:
    two = np.stack([LABELS, np.zeros_like(LABELS)], axis=1)
    of_one, of_two = (balance_of(labels, CLASSES, BALANCED, seed=3, num_stages=3) for labels in (LABELS, two))
    assert of_one == of_two


@pytest.mark.parametrize("changes", [{"balanced": False}, {"head": "prototype", "freeze_depth": 3}])
def test_where_nothing_is_balanced_nothing_is_said(changes: dict[str, object]) -> None:
    recipe = BALANCED.model_copy(update=changes)
    assert balance_of(LABELS, CLASSES, recipe, seed=3, num_stages=3) is None
