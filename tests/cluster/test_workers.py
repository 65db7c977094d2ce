"""Every fine-tuning of a run draws by its own seeds, and pulls to the weights that its process holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from finetune_examples import LABELS, a_spec, some_hyperparameters, some_samples
from tiny_experiments import experiment_dict
from workbenches import random_workbench

from orchestrator.cluster.workers import Workbench
from orchestrator.experiment_file import validate_experiment
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, new_classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained

SPEC = a_spec()
TRAIN, VALIDATION = some_samples(12), some_samples(6, seed=1)
PULLED = some_hyperparameters(freeze_depth=0, regularizer="l2_sp", regularizer_weight=0.5, regularizer_scope="both")


@pytest.fixture
def bench() -> Workbench:
    return random_workbench(SPEC)


def test_each_seed_of_a_training_is_the_experiments_own(bench: Workbench) -> None:
    seeds = {"split": 1, "sampler": 2, "trial": 3, "loader": 4}
    config = validate_experiment(experiment_dict(Path("data"), "runs", seed=9, seeds=seeds))
    found = Workbench.of(config, bench.backbone, "runs/tiny")
    assert (found.split_seed, found.seed, found.loader_seed) == (1, 3, 4)
    assert (found.settings("cpu").seed, found.settings("cpu").order_seed) == (3, 4)
    # The sampler has no part in a training.
    assert 2 not in (found.split_seed, found.seed, found.loader_seed)


def elsewhere() -> Classifier:
    """Make a classifier that starts with other weights than the workbench holds."""
    backbone, _ = load_pretrained("none", SPEC, seed=5)
    return new_classifier(backbone, len(LABELS), seed=5)


def trained_by_hand(bench: Workbench, source: Backbone | None, *, from_scratch: bool = False) -> Classifier:
    classifier = elsewhere()
    settings = bench.settings("cpu", from_scratch=from_scratch)
    fine_tune(classifier, SPEC, TRAIN, VALIDATION, PULLED, settings, source=source)
    return classifier


def trained(bench: Workbench, *, from_scratch: bool = False) -> Classifier:
    classifier = elsewhere()
    bench.fine_tune(classifier, TRAIN, VALIDATION, PULLED, "cpu", from_scratch=from_scratch, on_epoch=lambda end: None)
    return classifier


def same(one: Classifier, other: Classifier) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_training_is_pulled_to_the_weights_that_the_process_holds(bench: Workbench) -> None:
    found = trained(bench)
    assert same(found, trained_by_hand(bench, bench.pretrained()))
    assert not same(found, trained_by_hand(bench, None))


def test_a_training_goes_on_from_a_state_and_beside_a_source(bench: Workbench) -> None:
    beside = Companion(samples=some_samples(9, seed=2))
    states: list[TrainingState] = []

    def train(resume: TrainingState | None, companion: Companion | None) -> Classifier:
        classifier = elsewhere()
        bench.fine_tune(
            classifier,
            TRAIN,
            VALIDATION,
            PULLED,
            "cpu",
            on_epoch=lambda end: states.append(end.state),
            resume=resume,
            companion=companion,
        )
        return classifier

    whole = train(None, beside)
    assert [state.epoch for state in states] == [1, 2]
    assert same(train(states[0], beside), whole)
    assert [state.epoch for state in states] == [1, 2, 2]
    assert not same(train(None, None), whole)


def test_from_scratch_a_training_is_pulled_to_its_own_start(bench: Workbench) -> None:
    found = trained(bench, from_scratch=True)
    assert same(found, trained_by_hand(bench, None, from_scratch=True))
    assert not same(found, trained_by_hand(bench, bench.pretrained(), from_scratch=True))


def test_what_a_training_pulls_to_stays_as_it_is(bench: Workbench) -> None:
    before = {name: tensor.clone() for name, tensor in bench.pretrained().state_dict().items()}
    trained(bench)
    after = bench.pretrained().state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
