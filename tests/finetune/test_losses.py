from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from orchestrator.finetune.losses import Objective, balanced_class_weights

NUM_CLASSES = 5
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])

COMBINATIONS: list[dict[str, Any]] = [
    {"kind": kind, "smoothing": smoothing, "smoothing_towards": towards, "class_weights": weights}
    for kind in ("cross_entropy", "focal")
    for smoothing in (0.0, 0.2)
    for towards in ("uniform", "model")
    for weights in (None, WEIGHTS)
]


def some_logits(count: int = 7, seed: int = 0) -> Tensor:
    return 3 * torch.randn(count, NUM_CLASSES, generator=torch.Generator().manual_seed(seed))


def some_labels(count: int = 7, seed: int = 0) -> Tensor:
    return torch.randint(NUM_CLASSES, (count,), generator=torch.Generator().manual_seed(seed))


def some_targets(count: int = 7, seed: int = 0) -> Tensor:
    return torch.rand(count, NUM_CLASSES, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def gradient(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(objective.sum_of_losses(logits, targets), logits)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_nothing_switched_on_it_is_cross_entropy_bit_for_bit(dtype: torch.dtype) -> None:
    logits, labels = some_logits().to(dtype), some_labels()
    plain = cross_entropy(logits.float(), labels, reduction="sum")
    for off in (Objective(), Objective(smoothing_towards="model"), Objective(gamma=5.0)):
        assert torch.equal(off.sum_of_losses(logits, labels), plain)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_uniform_smoothing_and_weights_are_those_of_torch(weights: Tensor | None, smoothing: float) -> None:
    objective = Objective(smoothing=smoothing, class_weights=weights)
    for targets in (some_labels(), some_targets()):
        expected = cross_entropy(some_logits(), targets, weight=weights, label_smoothing=smoothing, reduction="sum")
        torch.testing.assert_close(objective.sum_of_losses(some_logits(), targets), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("towards", ["uniform", "model"])
def test_focal_loss_is_that_of_the_formula(smoothing: float, towards: Any) -> None:
    logits, labels = some_logits().double(), some_labels()
    probabilities = logits.softmax(dim=1)
    aims = one_hot(labels, NUM_CLASSES).double()
    if towards == "uniform":
        aims = (1 - smoothing) * aims + smoothing / NUM_CLASSES
    else:
        aims = aims + smoothing * probabilities
        aims = aims / aims.sum(dim=1, keepdim=True)
    terms = -WEIGHTS * aims * (1 - probabilities) ** 1.5 * probabilities.log()
    objective = Objective(
        kind="focal", gamma=1.5, smoothing=smoothing, smoothing_towards=towards, class_weights=WEIGHTS
    )
    torch.testing.assert_close(objective.sum_of_losses(some_logits(), labels), terms.sum().float())


@pytest.mark.parametrize("combination", [entry for entry in COMBINATIONS if entry["kind"] == "focal"])
def test_focal_loss_without_gamma_is_cross_entropy(combination: dict[str, Any]) -> None:
    focal = Objective(**combination, gamma=0.0)
    plain = Objective(**{**combination, "kind": "cross_entropy"})
    found, expected = (form.sum_of_losses(some_logits(), some_labels()) for form in (focal, plain))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_a_sure_model_is_finite_with_its_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0, 0.0, 0.0], [-200.0, 0.0, 0.0, 0.0, 0.0]])
    objective = Objective(kind="focal", gamma=gamma)
    assert objective.sum_of_losses(logits, torch.tensor([0, 0])).isfinite()
    assert gradient(objective, logits, torch.tensor([0, 0])).isfinite().all()


def test_focal_loss_weighs_easy_samples_down() -> None:
    easy, hard = torch.tensor([[4.0, 0, 0, 0, 0]]), torch.tensor([[0.0, 4.0, 0, 0, 0]])
    label = torch.tensor([0])

    def ratio(objective: Objective) -> float:
        return float(objective.sum_of_losses(easy, label) / objective.sum_of_losses(hard, label))

    assert ratio(Objective(kind="focal")) < 0.05 * ratio(Objective())


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_indices_and_their_one_hot_targets_give_the_same(combination: dict[str, Any]) -> None:
    objective, labels = Objective(**combination), some_labels()
    found = objective.sum_of_losses(some_logits(), one_hot(labels, NUM_CLASSES).float())
    torch.testing.assert_close(found, objective.sum_of_losses(some_logits(), labels))


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_sums_add_up_over_parts_of_a_batch(combination: dict[str, Any]) -> None:
    objective, logits, labels = Objective(**combination), some_logits(), some_labels()
    parts = sum(objective.sum_of_losses(logits[part], labels[part]) for part in (slice(0, 3), slice(3, 7)))
    torch.testing.assert_close(parts, objective.sum_of_losses(logits, labels))


@pytest.mark.parametrize("combination", [entry for entry in COMBINATIONS if entry["smoothing_towards"] == "uniform"])
@given(share=st.floats(0, 1))
def test_mixing_targets_mixes_losses(combination: dict[str, Any], share: float) -> None:
    objective, logits = Objective(**combination), some_logits()
    first, second = some_targets(seed=1), some_targets(seed=2)
    mixed = objective.sum_of_losses(logits, share * first + (1 - share) * second)
    apart = share * objective.sum_of_losses(logits, first) + (1 - share) * objective.sum_of_losses(logits, second)
    torch.testing.assert_close(mixed, apart, rtol=1e-5, atol=1e-5)


def test_smoothing_towards_the_model_scales_the_gradient_of_cross_entropy() -> None:
    plain = gradient(Objective(), some_logits(), some_labels())
    smoothed = gradient(Objective(smoothing=0.25, smoothing_towards="model"), some_logits(), some_labels())
    torch.testing.assert_close(smoothed, plain / 1.25)


def test_smoothing_towards_the_model_is_worth_the_renormalised_targets() -> None:
    logits = some_logits()
    probabilities = logits.softmax(dim=1)
    aims = one_hot(some_labels(), NUM_CLASSES) + 0.25 * probabilities
    aims = aims / aims.sum(dim=1, keepdim=True)
    objective = Objective(smoothing=0.25, smoothing_towards="model")
    expected = -(aims * probabilities.log()).sum()
    torch.testing.assert_close(objective.sum_of_losses(logits, some_labels()), expected)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any))
def test_balanced_weights_have_mean_one_and_give_classes_equal_sums(counts: list[int]) -> None:
    class_counts = np.array(counts, dtype=np.int64)
    weights = balanced_class_weights(class_counts)
    sums = weights.double().numpy() * class_counts
    assert sums.sum() / class_counts.sum() == pytest.approx(1, rel=1e-6)
    present = class_counts > 0
    assert np.ptp(sums[present]) <= 1e-4 * sums.max()
    assert not weights.numpy()[~present].any()


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_uniform_smoothing_may_leave_the_last_outputs_out(kind: str) -> None:
    logits, targets = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(targets: Tensor, **fields: Any) -> float:
        return float(Objective(kind=kind, **fields).sum_of_losses(logits, targets))

    assert loss(targets, smoothing=0.3, num_smoothed=5) == pytest.approx(loss(targets, smoothing=0.3), rel=1e-6)
    by_hand = torch.full((6, 5), 0.0)
    by_hand[:, :3] = 0.1
    by_hand[torch.arange(6), targets] += 0.7
    assert loss(targets, smoothing=0.3, num_smoothed=3) == pytest.approx(loss(by_hand), rel=1e-6)
