"""Heads of subsets on one suffix: a sample teaches its subset's head alone, and all teach the stages they share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetune_examples import a_spec, some_hyperparameters, some_settings, subsets_of_a_group
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.errors import TrainingError
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.loop import FineTuneResult, fine_tune
from orchestrator.finetune.tasks import NO_LABEL, TaskObjective, objective_of, strata, task_weights
from orchestrator.finetune.weights import load_pretrained

COUNTS = (3, 2)


def a_classifier() -> Classifier:
    backbone, _ = load_pretrained("none", a_spec(), seed=0)
    return new_classifier(backbone, COUNTS, seed=0)


def run(
    classifier: Classifier, *, count: int = 60, resume: TrainingState | None = None, **changes: object
) -> tuple[FineTuneResult, list[TrainingState]]:
    states: list[TrainingState] = []
    result = fine_tune(
        classifier,
        a_spec(),
        subsets_of_a_group(count),
        subsets_of_a_group(24, seed=1),
        some_hyperparameters(**changes),
        some_settings(),
        on_epoch=lambda end: states.append(end.state),
        resume=resume,
    )
    return result, states


def objective(labels: NDArray[np.int64]) -> TaskObjective:
    _, suffix = freeze(a_classifier(), 1)
    found = objective_of(suffix, some_hyperparameters(), LabelCounts.of(labels), "cpu")
    assert isinstance(found, TaskObjective)
    return found


def test_a_sample_moves_its_own_head_alone() -> None:
    labels = subsets_of_a_group(12).labels
    logits = torch.randn(12, 5, requires_grad=True)
    objective(labels).sum_of_losses(logits, torch.from_numpy(labels)).backward()
    assert logits.grad is not None
    is_first = labels[:, 0] != NO_LABEL
    assert not logits.grad[is_first, 3:].any() and not logits.grad[~is_first, :3].any()
    assert logits.grad[is_first, :3].any() and logits.grad[~is_first, 3:].any()


def test_two_subsets_that_call_the_same_picture_differently_are_both_learnt() -> None:
    classifier = a_classifier()
    result, _ = run(classifier, count=90, epochs=12, freeze_depth=0, learning_rate=1e-2)
    assert result.history[result.best_epoch - 1].val_accuracy > 0.9
    samples = subsets_of_a_group(24, seed=1)
    found = predict_probabilities(classifier, a_spec(), samples.pixels, device="cpu")
    is_first = samples.labels[:, 0] != NO_LABEL
    assert (found[is_first, :3].argmax(axis=1) == samples.labels[is_first, 0]).mean() > 0.9
    assert (found[~is_first, 3:].argmax(axis=1) == samples.labels[~is_first, 1]).mean() > 0.9


@pytest.mark.parametrize("weighting", ["equal", "size", "uncertainty"])
def test_the_loss_of_a_batch_is_as_large_as_that_of_one_head(weighting: str) -> None:
    weights = task_weights(some_hyperparameters(task_weighting=weighting), [30, 10, 0], num_samples=40)
    share = [30, 10] if weighting == "size" else [20, 20]
    torch.testing.assert_close(weights * torch.tensor([30.0, 10.0, 1.0]), torch.tensor([*map(float, share), 0.0]))


def test_by_size_every_image_weighs_the_same_as_under_one_head() -> None:
    assert task_weights(some_hyperparameters(task_weighting="size"), [30, 10], num_samples=40).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("weighting", ["equal", "uncertainty"])
def test_a_resumed_training_is_bitwise_the_uninterrupted_one(weighting: str) -> None:
    changes = {"epochs": 4, "task_weighting": weighting, "weight_decay": 0.01, "optimizer": "adamw"}
    whole, parts = a_classifier(), a_classifier()
    expected, states = run(whole, **changes)
    found, _ = run(parts, resume=states[1], **changes)
    assert found.history == expected.history
    assert all(torch.equal(tensor, parts.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_frozen_stages_are_untouched_and_all_heads_are_trained() -> None:
    classifier = a_classifier()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    run(classifier, freeze_depth=2)

    def moved(part: Tensor, start: Tensor) -> bool:
        return not torch.equal(part, start)

    weight = classifier.head.weight
    assert moved(weight[:3], before["head.weight"][:3]) and moved(weight[3:], before["head.weight"][3:])
    for name, tensor in classifier.prefix(2).state_dict().items():
        assert torch.equal(tensor, before[f"backbone.stages.{name}"])


def test_what_is_dealt_evenly_is_every_class_of_every_head() -> None:
    labels = np.array([[0, -1], [2, -1], [-1, 0], [-1, 1], [-1, -1]])
    assert strata(labels).tolist() == [0, 2, 3, 4, 5]
    assert strata(labels[:2]).tolist() == [0, 2]
    assert strata(labels[:, 0]).tolist() == [0, 2, -1, -1, -1]
    assert strata(labels[:0]).tolist() == []


def test_balanced_epochs_are_refused() -> None:
    with pytest.raises(TrainingError, match="balanced must be false where each sample has a label for one of several"):
        run(a_classifier(), balanced=True)
