"""Several tasks on one suffix: their losses and weights are the written formulas, and one task is what it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from finetune_examples import ArraySamples, a_spec, some_hyperparameters, some_samples, some_settings, two_tasks
from torch import Tensor
from torch.nn.functional import cross_entropy

from orchestrator.errors import TrainingError
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.loop import FineTuneResult, fine_tune
from orchestrator.finetune.losses import Objective
from orchestrator.finetune.tasks import (
    NO_LABEL,
    TaskObjective,
    judge_tasks,
    mean_over_tasks,
    objective_of,
    task_weights,
)
from orchestrator.finetune.weights import load_pretrained

COUNTS = (3, 2)


def a_classifier(class_counts: tuple[int, ...] | int = COUNTS) -> Classifier:
    backbone, _ = load_pretrained("none", a_spec(), seed=0)
    return new_classifier(backbone, class_counts, seed=0)


def run(
    samples: ArraySamples,
    classifier: Classifier,
    *,
    resume: TrainingState | None = None,
    validation: ArraySamples | None = None,
    **changes: object,
) -> tuple[FineTuneResult, list[TrainingState]]:
    states: list[TrainingState] = []
    result = fine_tune(
        classifier,
        a_spec(),
        samples,
        validation or two_tasks(12, seed=1),
        some_hyperparameters(**changes),
        some_settings(),
        on_epoch=lambda end: states.append(end.state),
        resume=resume,
    )
    return result, states


def an_objective(log_variances: Tensor | None = None, **changes: object) -> TaskObjective:
    weights = torch.tensor([1.0, 0.5])
    plain = Objective(**changes)  # type: ignore[arg-type]
    return TaskObjective(objectives=(plain, plain), class_counts=COUNTS, weights=weights, log_variances=log_variances)


LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
TARGETS = torch.tensor([[0, 1], [2, 0], [1, NO_LABEL], [1, 1], [0, NO_LABEL], [2, 1]])
KNOWN = [0, 1, 3, 5]


def test_losses_and_gradients_of_two_tasks_are_the_written_ones() -> None:
    logits, written = (LOGITS.clone().requires_grad_() for _ in range(2))
    found = an_objective().sum_of_losses(logits, TARGETS)
    logs = [written[:, :3].log_softmax(1), written[:, 3:].log_softmax(1)]
    expected = -sum(logs[0][row, TARGETS[row, 0]] for row in range(6))
    expected = expected - 0.5 * sum(logs[1][row, TARGETS[row, 1]] for row in KNOWN)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.grad, written.grad)


@pytest.mark.parametrize("method", [{}, {"smoothing": 0.1}, {"kind": "focal"}])
def test_a_missing_label_has_no_part_in_loss_or_gradient(method: dict[str, object]) -> None:
    logits = LOGITS.clone().requires_grad_()
    log_variances = torch.tensor([0.3, -0.2], requires_grad=True)
    found = an_objective(log_variances, **method).sum_of_losses(logits, TARGETS)
    found.backward()
    assert logits.grad is not None
    assert not logits.grad[[2, 4], 3:].any() and logits.grad[[2, 4], :3].all(dim=1).all()
    unlabelled = torch.full_like(TARGETS, NO_LABEL)
    assert an_objective(log_variances).sum_of_losses(LOGITS, unlabelled) == 0


def test_a_head_over_one_class_teaches_nothing_and_its_uncertainty_stays() -> None:
    log_variances = torch.zeros(2, requires_grad=True)
    objectives = (Objective(), Objective())
    objective = TaskObjective(
        objectives=objectives, class_counts=(3, 1), weights=torch.ones(2), log_variances=log_variances
    )
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    objective.sum_of_losses(logits, torch.zeros(4, 2, dtype=torch.int64)).backward()
    assert log_variances.grad is not None and log_variances.grad[1] == 0 != log_variances.grad[0]
    assert logits.grad is not None and not logits.grad[:, 3].any()


def test_validation_that_no_head_judges_is_an_error() -> None:
    with pytest.raises(TrainingError, match="validation must have an image with a label that some head knows"):
        mean_over_tasks(torch.zeros(2, 2), np.full((3, 2), NO_LABEL))


def test_uncertainty_weighs_by_the_formula_of_kendall_and_others() -> None:
    log_variances = torch.tensor([0.3, -0.2], requires_grad=True)
    found = an_objective(log_variances).sum_of_losses(LOGITS, TARGETS)
    first = cross_entropy(LOGITS[:, :3], TARGETS[:, 0], reduction="sum")
    second = cross_entropy(LOGITS[KNOWN, 3:], TARGETS[KNOWN, 1], reduction="sum")
    s, t = 0.3, -0.2
    expected = np.exp(-s) * first + 6 * s / 2 + 0.5 * (np.exp(-t) * second + 4 * t / 2)
    torch.testing.assert_close(found, expected)
    found.backward()
    gradient = torch.stack([-np.exp(-s) * first + 3, 0.5 * (-np.exp(-t) * second + 2)])
    torch.testing.assert_close(log_variances.grad, gradient)


@pytest.mark.parametrize(
    ("weighting", "of_means"),
    [("equal", (1.0, 1.0)), ("uncertainty", (1.0, 1.0)), ("size", (1.6, 0.4)), ((0.7, 2.0), (0.7, 2.0))],
)
def test_weights_are_those_of_the_mean_losses(weighting: object, of_means: tuple[float, float]) -> None:
    found = task_weights(some_hyperparameters(task_weighting=weighting), [100, 25], num_samples=100)
    torch.testing.assert_close(found, torch.tensor([of_means[0], of_means[1] * 4]))


def test_a_task_without_labels_weighs_nothing() -> None:
    assert task_weights(some_hyperparameters(), [100, 0], num_samples=100).tolist() == [1.0, 0.0]


def test_validation_is_the_mean_over_tasks_of_what_is_labelled() -> None:
    totals = judge_tasks(LOGITS, TARGETS, COUNTS)
    loss, accuracy = mean_over_tasks(totals, TARGETS.numpy())
    losses = cross_entropy(LOGITS[:, :3], TARGETS[:, 0]), cross_entropy(LOGITS[KNOWN, 3:], TARGETS[KNOWN, 1])
    right = [
        (LOGITS[:, :3].argmax(1) == TARGETS[:, 0]).double().mean(),
        (LOGITS[KNOWN, 3:].argmax(1) == TARGETS[KNOWN, 1]).double().mean(),
    ]
    assert loss == pytest.approx(float(sum(losses)) / 2)
    assert accuracy == pytest.approx(float(sum(right)) / 2)
    only_first = TARGETS.clone()
    only_first[:, 1] = NO_LABEL
    assert mean_over_tasks(judge_tasks(LOGITS, only_first, COUNTS), only_first.numpy())[0] == pytest.approx(
        float(losses[0])
    )


def test_a_task_beside_one_without_labels_learns_what_it_learns_alone() -> None:
    # The second task has no label, so that its loss is nothing.
    samples, validation = some_samples(21), some_samples(12, seed=1)
    alone = a_classifier(3)
    plain, _ = run(samples, alone, validation=validation, epochs=3)
    beside = a_classifier((3, 2))
    with torch.no_grad():
        beside.head.weight[:3] = a_classifier(3).head.weight
        beside.head.bias[:3] = a_classifier(3).head.bias
    unlabelled = [
        ArraySamples(found.pixels, np.stack([found.labels, np.full(len(found), NO_LABEL)], axis=1))
        for found in (samples, validation)
    ]
    several, _ = run(unlabelled[0], beside, validation=unlabelled[1], epochs=3)
    for one, other in zip(plain.history, several.history, strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-6)
    torch.testing.assert_close(alone.head.weight, beside.head.weight[:3], atol=1e-6, rtol=1e-5)


def test_two_tasks_are_learnt_at_once() -> None:
    classifier = a_classifier()
    result, _ = run(two_tasks(90, missing=30), classifier, epochs=12, freeze_depth=0, learning_rate=1e-2)
    assert result.history[result.best_epoch - 1].val_accuracy > 0.9
    validation = two_tasks(12, seed=1)
    found = predict_probabilities(classifier, a_spec(), validation.pixels, device="cpu")
    np.testing.assert_allclose(found[:, :3].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[:, 3:].sum(axis=1), 1, atol=1e-5)
    assert (found[:, 3:].argmax(axis=1) == validation.labels[:, 1]).mean() > 0.9


@pytest.mark.parametrize("weighting", ["equal", "uncertainty"])
def test_a_resumed_training_of_two_tasks_is_bitwise_the_uninterrupted_one(weighting: str) -> None:
    changes = {"epochs": 4, "task_weighting": weighting, "weight_decay": 0.01, "optimizer": "adamw", "ema_decay": 0.5}
    whole, parts = a_classifier(), a_classifier()
    samples = two_tasks(21, missing=5)
    expected, states = run(samples, whole, **changes)
    found, _ = run(samples, parts, resume=states[1], **changes)
    assert found.history == expected.history
    assert all(torch.equal(tensor, parts.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert ("log_variances" in states[-1].suffix) is (weighting == "uncertainty")
    assert "log_variances" not in whole.state_dict()


def test_log_variances_are_learnt_and_nothing_pulls_them_to_zero() -> None:
    changes = {"task_weighting": "uncertainty", "epochs": 4, "learning_rate": 1e-2}
    pulled = {"regularizer": "l2_sp", "regularizer_weight": 10.0, "regularizer_scope": "backbone"}
    _, states = run(two_tasks(90), a_classifier(), **changes)
    moved = states[-1].suffix["log_variances"]
    assert moved.abs().min() > 1e-3
    _, [first, *_] = run(two_tasks(90), a_classifier(), weight_decay=0.5, **pulled, **changes)
    assert first.suffix["log_variances"].abs().min() > 1e-3
    _, suffix = freeze(a_classifier(), 1, weighs_tasks=True)
    assert suffix.log_variances is not None and suffix.log_variances.requires_grad


def test_classes_of_each_task_are_weighed_by_its_own_labels() -> None:
    _, suffix = freeze(a_classifier(), 1)
    labels = two_tasks(30, missing=6).labels
    found = objective_of(suffix, some_hyperparameters(class_weights="balanced"), LabelCounts.of(labels), "cpu")
    assert isinstance(found, TaskObjective)
    counts = np.bincount(labels[:24, 1])
    weights = found.objectives[1].class_weights
    assert weights is not None
    np.testing.assert_allclose(weights.numpy(), counts.sum() / (2 * counts), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing": "mixup"}, "mixing must be none where several tasks are trained, got mixup"),
        ({"task_weighting": (1.0, 2.0, 3.0)}, "fixed task weights must be 2, one for each task, got 3"),
        ({"task_weighting": {"a": 1.0, "b": 2.0}}, "must be numbers in the order of the heads, got a, b"),
    ],
)
def test_what_several_tasks_cannot_have_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        run(two_tasks(12), a_classifier(), **changes)


def test_a_checkpoint_of_another_weighting_is_refused() -> None:
    _, states = run(two_tasks(12), a_classifier(), epochs=2)
    with pytest.raises(TrainingError, match="same hyperparameters"):
        run(two_tasks(12), a_classifier(), epochs=2, task_weighting="uncertainty", resume=replace(states[0]))


def test_log_variances_are_held_with_the_heads() -> None:
    changes = {"task_weighting": "uncertainty", "strategy": "feature_only", "epochs": 4, "head_share": 0.5}
    _, states = run(two_tasks(21), a_classifier(), **changes)
    kept = [state.suffix["log_variances"] for state in states]
    assert not torch.equal(kept[0], kept[1]) and torch.equal(kept[1], kept[3])
