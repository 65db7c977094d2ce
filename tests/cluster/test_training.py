"""What the card of a trained model says of its training."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed_search import some_samples
from finetune_examples import a_spec, some_hyperparameters
from workbenches import random_workbench

from orchestrator.cluster.training import ModelJob, describe_model
from orchestrator.records import Hyperparameters

PENALISED = {"regularizer": "l1", "regularizer_weight": 0.05, "regularizer_scope": "both", "epochs": 4}


@pytest.mark.parametrize(
    ("recipe", "has_sparsity"), [(some_hyperparameters(**PENALISED), True), (some_hyperparameters(), False)]
)
def test_a_card_says_what_its_training_found(tmp_path: Path, recipe: Hyperparameters, has_sparsity: bool) -> None:
    samples, bench = (
        some_samples(tmp_path / "pixels", num_train=30, num_validation=9),
        random_workbench(a_spec(image_size=32)),
    )
    classifier = bench.classifier(samples.class_counts)
    found = bench.fine_tune(classifier, samples.train, samples.validation, recipe, "cpu", on_epoch=lambda end: None)
    job = ModelJob(group="only", subsets=("a",), hyperparameters=recipe, fingerprint="", data_fingerprint="")
    card = describe_model(job, samples, bench, found, ["here"], {"CPU": 1.0})
    assert card.sparsity == found.sparsity
    assert (card.sparsity is not None and card.sparsity > 0) is has_sparsity
    assert (card.best_epoch, card.history) == (found.best_epoch, found.history)
