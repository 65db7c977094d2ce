"""One step at a time: rates, momenta, penalties and their scope, and gradients that fp16 cannot hold as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from finetune_examples import LABELS, a_spec, some_hyperparameters, some_samples, some_settings
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.finetune.checkpoints import TrainingState, load_state, save_state
from orchestrator.finetune.classifier import Classifier, preprocess
from orchestrator.finetune.freezing import Suffix, freeze
from orchestrator.finetune.loop import FineTuneResult, fine_tune
from orchestrator.finetune.losses import Objective
from orchestrator.finetune.phases import Phase
from orchestrator.finetune.stepping import Stepper
from orchestrator.finetune.steps import Step

Maker = Callable[..., Classifier]
Weights = dict[str, Tensor]
SPEC = a_spec()
COUNT = 8
SAMPLES = some_samples(COUNT)
PLAIN_SGD = {"optimizer": "sgd", "momentum": 0.0}
RATE = 0.0625
# What is left of a rate after a quarter of half a cosine.
FALLEN = (1 + math.cos(math.pi / 4)) / 2
FIRST_SCALE = 2.0**16
LARGEST_FP16 = 65504.0


def a_batch(scale: float = 1 / COUNT) -> Step:
    """The whole of some samples, whose sum of losses counts by a scale."""
    return Step(
        inputs=preprocess(SAMPLES.pixels, SPEC, "cpu"),
        targets=torch.from_numpy(SAMPLES.labels),
        count=COUNT,
        scale=scale,
        done=0.5,
        total=COUNT,
    )


def weights_of(suffix: nn.Module) -> Weights:
    return {name: parameter.detach().clone() for name, parameter in suffix.named_parameters()}


def a_stepper(
    classifier: Classifier, *, start: Weights | None = None, precision: str = "fp32", **changes: object
) -> tuple[Stepper, Suffix]:
    """Put a stepper, already in its only phase, on all of a classifier."""
    _, suffix = freeze(classifier, 0)
    recipe = some_hyperparameters(freeze_depth=0, **{**PLAIN_SGD, "learning_rate": RATE, **changes})
    found = Stepper(suffix, recipe, some_settings(precision=precision), Objective(), start or {})
    found.enter(Phase(first_epoch=1, depth=0))
    return found, suffix


def steps(
    classifier: Classifier, count: int, *, done: Sequence[float] = (), scale: float = 1 / COUNT, **changes: object
) -> list[Weights]:
    """Give the weights at the start and after each of some steps on the same batch."""
    stepper, suffix = a_stepper(classifier, **changes)
    found = [weights_of(suffix)]
    for number in range(count):
        share = done[number] if done else 0.0
        stepper.step([a_batch(scale)], done=lambda batch, share=share: share)
        found.append(weights_of(suffix))
    return found


def gradient(classifier: Classifier, weights: Weights) -> Weights:
    """Give the gradient of the mean loss at some weights, BatchNorm's statistics being held."""
    _, suffix = freeze(classifier, 0)
    suffix.load_state_dict({**suffix.state_dict(), **weights})
    suffix.eval()
    loss = cross_entropy(suffix(a_batch().inputs), a_batch().targets)
    return dict(zip(weights, torch.autograd.grad(loss, list(suffix.parameters())), strict=True))


def assert_moved(before: Weights, after: Weights, by: Weights) -> None:
    """Hold what a step took off each weight against what it should have."""
    for name, move in by.items():
        torch.testing.assert_close(before[name] - after[name], move, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"rate_scaling": "none"}, 1.0),
        ({"rate_scaling": "linear", "batch_size": 8}, 0.25),
        ({"rate_scaling": "linear", "batch_size": 128}, 4.0),
        ({"rate_scaling": "sqrt", "batch_size": 128}, 2.0),
        ({"rate_scaling": "linear", "batch_size": 32, "accumulate": 2}, 2.0),
    ],
)
def test_the_rate_of_a_constant_schedule_is_that_for_the_samples_of_a_step(
    tiny_classifier: Maker, changes: dict[str, object], factor: float
) -> None:
    before, after = steps(tiny_classifier(), 1, **changes)
    slope = gradient(tiny_classifier(), before)
    assert_moved(before, after, {name: factor * RATE * slope[name] for name in slope})


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({"schedule": "cosine"}, [FALLEN, 0.5, 1 - FALLEN]),
        ({"schedule": "cosine", "warmup": 0.5}, [0.5, 1.0, 0.5]),
        ({"schedule": "constant", "warmup": 0.5}, [0.5, 1.0, 1.0]),
        ({"schedule": "cosine", "rate_scaling": "linear", "batch_size": 64}, [2 * FALLEN, 1.0, 2 * (1 - FALLEN)]),
    ],
)
def test_a_schedule_sets_the_rate_of_every_step(
    tiny_classifier: Maker, changes: dict[str, object], factors: list[float]
) -> None:
    found = steps(tiny_classifier(), 3, done=(0.25, 0.5, 0.75), **changes)
    for before, after, factor in zip(found[:-1], found[1:], factors, strict=True):
        slope = gradient(tiny_classifier(), before)
        assert_moved(before, after, {name: factor * RATE * slope[name] for name in slope})


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True)])
def test_momentum_adds_to_a_step_what_is_left_of_the_one_before(
    tiny_classifier: Maker, momentum: float, nesterov: bool
) -> None:
    start, first, second = steps(tiny_classifier(), 2, momentum=momentum, nesterov=nesterov)
    slopes = [gradient(tiny_classifier(), weights) for weights in (start, first)]
    for name in start:
        one, two = (slope[name] for slope in slopes)
        speed = momentum * one + two
        ahead = 1 + momentum if nesterov else 1.0
        torch.testing.assert_close(start[name] - first[name], RATE * ahead * one, rtol=1e-4, atol=1e-6)
        move = RATE * (two + momentum * speed if nesterov else speed)
        torch.testing.assert_close(first[name] - second[name], move, rtol=1e-4, atol=1e-6)


HEAD = {"3.weight", "3.bias"}


@pytest.mark.parametrize("scope", ["backbone", "head", "both"])
@pytest.mark.parametrize("regularizer", ["l2", "l2_sp"])
def test_a_penalty_moves_the_weights_of_its_scope_and_no_others(
    tiny_classifier: Maker, scope: str, regularizer: str
) -> None:
    start = {name: tensor + 0.25 for name, tensor in weights_of(freeze(tiny_classifier(), 0)[1]).items()}
    # A loss that counts for nothing leaves the penalty alone.
    before, after = steps(
        tiny_classifier(),
        1,
        scale=0.0,
        start=start,
        regularizer=regularizer,
        regularizer_weight=0.5,
        regularizer_scope=scope,
    )
    assert before.keys() > HEAD
    bound = {"backbone": before.keys() - HEAD, "head": HEAD, "both": before.keys()}[scope]
    for name, tensor in before.items():
        slope = tensor if regularizer == "l2" else tensor - start[name]
        move = RATE * 0.5 * slope if name in bound else torch.zeros_like(tensor)
        torch.testing.assert_close(tensor - after[name], move, rtol=1e-5, atol=1e-7)
        assert name in bound or torch.equal(after[name], tensor)


@pytest.mark.parametrize("scope", ["backbone", "head", "both"])
def test_the_sparsity_that_an_l1_penalty_reached_is_that_of_its_scope(tiny_classifier: Maker, scope: str) -> None:
    classifier = tiny_classifier()
    result, _ = run(
        classifier, regularizer="l1", regularizer_weight=0.05, regularizer_scope=scope, epochs=8, learning_rate=0.01
    )
    # Those of the first stage are frozen.
    backbone, head = list(classifier.backbone.stages[1:].parameters()), list(classifier.head.parameters())
    bound = {"backbone": backbone, "head": head, "both": backbone + head}[scope]
    small = sum(int((tensor.abs() <= 1e-3).sum()) for tensor in bound)
    assert result.sparsity == small / sum(tensor.numel() for tensor in bound)
    assert 0.05 < result.sparsity < 1


@pytest.mark.parametrize("regularizer", ["none", "l2", "l2_sp"])
def test_without_an_l1_penalty_no_sparsity_is_stated(tiny_classifier: Maker, regularizer: str) -> None:
    assert run(tiny_classifier(), regularizer=regularizer)[0].sparsity is None


def test_fp16_keeps_gradients_that_it_cannot_hold_unscaled(tiny_classifier: Maker) -> None:
    tiny = 2.0**-26
    # What reaches the network of such a loss is below the least number of fp16.
    assert torch.tensor(tiny).half() == 0
    exact, found = (
        steps(tiny_classifier(), 1, scale=tiny, learning_rate=1 / tiny, precision=precision)
        for precision in ("fp32", "fp16")
    )
    for name, tensor in exact[1].items():
        expected, move = tensor - exact[0][name], found[1][name] - found[0][name]
        assert expected.any()
        assert (move - expected).norm() < 0.02 * expected.norm() + 1e-6


def test_a_step_whose_gradients_overflow_is_skipped_and_the_next_ones_are_scaled_less(tiny_classifier: Maker) -> None:
    stepper, suffix = a_stepper(tiny_classifier(), precision="fp16", momentum=0.9)
    start, large = weights_of(suffix), a_batch(scale=2 * LARGEST_FP16 / FIRST_SCALE)
    scales, moved = [], []
    for _ in range(12):
        stepper.step([large], done=lambda batch: 0.0)
        scales.append(stepper.state()["scaler"]["scale"])
        moved.append(any(not torch.equal(start[name], tensor) for name, tensor in weights_of(suffix).items()))
    skipped = moved.index(True)
    assert skipped >= 1
    assert scales[:skipped] == [FIRST_SCALE / 2**number for number in range(1, skipped + 1)]
    assert scales[skipped] == scales[skipped - 1]
    assert all(tensor.isfinite().all() for tensor in weights_of(suffix).values())


def test_clipping_bounds_gradients_as_they_are_without_their_scale(tiny_classifier: Maker) -> None:
    moves = []
    for precision in ("fp32", "fp16"):
        before, after = steps(tiny_classifier(), 1, clip_norm=0.01, precision=precision)
        moves.append(torch.cat([(before[name] - after[name]).flatten() for name in before]))
    for move in moves:
        assert float(move.norm()) == pytest.approx(0.01 * RATE, rel=1e-3)
    torch.testing.assert_close(moves[1], moves[0], rtol=0.05, atol=1e-5)


def test_only_fp16_scales_its_gradients(tiny_classifier: Maker) -> None:
    scalers = {
        precision: a_stepper(tiny_classifier(), precision=precision)[0].state()["scaler"]
        for precision in ("fp32", "bf16", "fp16")
    }
    assert scalers["fp32"] == scalers["bf16"] == {}
    assert scalers["fp16"]["scale"] == FIRST_SCALE


def run(
    classifier: Classifier, *, resume: TrainingState | None = None, precision: str = "fp32", **changes: object
) -> tuple[FineTuneResult, list[TrainingState]]:
    states: list[TrainingState] = []
    result = fine_tune(
        classifier,
        SPEC,
        some_samples(21, noisy_labels=True),
        some_samples(len(LABELS), seed=1),
        some_hyperparameters(**changes),
        some_settings(precision=precision),
        on_epoch=lambda end: states.append(end.state),
        resume=resume,
    )
    return result, states


def steep(classifier: Classifier) -> Classifier:
    """Make a head so large that the first gradients overflow fp16 where they are scaled as much as at first."""
    with torch.no_grad():
        classifier.head.weight *= 200
    return classifier


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resumed_training_in_fp16_goes_on_with_the_scale_that_it_had(
    tiny_classifier: Maker, tmp_path: Path, optimizer: str
) -> None:
    method = {"precision": "fp16", "optimizer": optimizer, "epochs": 4, "freeze_depth": 0}
    whole = steep(tiny_classifier())
    result, states = run(whole, **method)
    scales = [state.steps["scaler"]["scale"] for state in states]
    assert scales[0] < FIRST_SCALE
    save_state(states[0], tmp_path)
    resumed = steep(tiny_classifier())
    again, later = run(resumed, resume=load_state(tmp_path), **method)
    assert again.history == result.history
    assert [state.steps["scaler"] for state in later] == [state.steps["scaler"] for state in states[1:]]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)
