"""The card of a model says what its training did with the samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed_search import CLASSES, some_samples
from finetune_examples import a_spec
from group_contexts import train_and_save
from workbenches import random_workbench

from orchestrator.finetune.models import load_model
from orchestrator.records import Group, Hyperparameters

GROUP = Group.put_together("only", ["a"])


@pytest.mark.parametrize("balanced", [True, False])
def test_a_model_of_balanced_classes_says_what_was_repeated(tmp_path: Path, balanced: bool) -> None:
    bench, samples = random_workbench(a_spec(image_size=32)), some_samples(tmp_path / "pixels")
    # Of the first class every fifth image is left.
    labels = samples.train.labels
    kept = np.flatnonzero((labels != 0) | (np.arange(len(labels)) % 5 == 0))
    samples = replace(samples, train=samples.train.select(kept))
    recipe = Hyperparameters(freeze_depth=3, learning_rate=1e-3, epochs=1, batch_size=16, balanced=balanced, crop=0.1)
    train_and_save(samples, bench, recipe, GROUP, tmp_path / "model")
    _, card = load_model(str(tmp_path / "model"))
    assert card.hyperparameters == recipe
    if not balanced:
        assert card.balance is None
        return
    assert card.balance is not None and card.balance.most_repeated == CLASSES[0]
    assert card.balance.most_repeated_images == (samples.train.labels == 0).sum()
    assert card.balance.times_shown > 2 and card.balance.num_repeated == 1
