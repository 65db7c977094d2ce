"""What a recipe says of how samples are varied is what is trained on, in every way to train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from finetune_examples import (
    ListStream,
    a_spec,
    some_hyperparameters,
    some_samples,
    some_settings,
)

from orchestrator.config import AugmentConfig
from orchestrator.finetune.checkpoints import TrainingState, load_state, save_state
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.cross_validation import Fold, fine_tune_folds
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.records import EpochMetrics, Hyperparameters

Maker = Callable[..., Classifier]
OFF, ON = AugmentConfig(views=0), AugmentConfig(views=0, flip=True, crop=0.2, erasing=0.5)
CHOICE = {"flip": True, "crop": 0.2, "erasing": 0.5}


def trained(classifier: Classifier, way: str, recipe: Hyperparameters, section: AugmentConfig) -> list[EpochMetrics]:
    samples, validation, settings = some_samples(24), some_samples(12, seed=1), some_settings(augment=section)
    if way == "folds":
        found: list[EpochMetrics] = []
        folds = [Fold(train=samples, validation=validation)]
        fine_tune_folds(lambda: classifier, a_spec(), folds, recipe, settings, on_epoch=lambda ends: found.extend(ends))
        return found
    positions = [list(range(start, start + 8)) for start in range(0, 24, 8)]
    stream = ListStream(samples, positions, num_samples=24)
    companion = Companion(samples=some_samples(12, seed=2)) if way == "source" else None
    train = stream if way == "stream" else samples
    return fine_tune(classifier, a_spec(), train, validation, recipe, settings, companion=companion).history


@pytest.mark.parametrize("way", ["samples", "stream", "folds", "source", "mixing"])
def test_a_choice_trains_as_the_section_would(tiny_classifier: Maker, way: str) -> None:
    methods: dict[str, object] = {"mixing": "mixup"} if way == "mixing" else {}
    plain, chosen = some_hyperparameters(**methods), some_hyperparameters(**methods, **CHOICE)
    found = trained(tiny_classifier(), way, chosen, OFF)
    assert found == trained(tiny_classifier(), way, plain, ON)
    assert found != trained(tiny_classifier(), way, plain, OFF)


def test_what_a_recipe_turns_off_is_off(tiny_classifier: Maker) -> None:
    off = some_hyperparameters(flip=False, crop=0.0, erasing=0.0)
    plain = some_hyperparameters()
    assert trained(tiny_classifier(), "samples", off, ON) == trained(tiny_classifier(), "samples", plain, OFF)


def test_a_resumed_training_goes_on_with_its_own_choice(tiny_classifier: Maker, tmp_path: Path) -> None:
    recipe, settings = some_hyperparameters(epochs=3, **CHOICE), some_settings(augment=OFF)
    samples, validation = some_samples(24), some_samples(12, seed=1)
    states: list[TrainingState] = []

    def keep(end: EpochEnd) -> None:
        states.append(end.state)

    whole = fine_tune(tiny_classifier(), a_spec(), samples, validation, recipe, settings, on_epoch=keep)
    save_state(states[0], tmp_path)
    resumed = fine_tune(tiny_classifier(), a_spec(), samples, validation, recipe, settings, resume=load_state(tmp_path))
    assert resumed.history == whole.history
