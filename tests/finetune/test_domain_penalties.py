"""The distances of two batches are those of their papers, and have the gradients that autograd checks numerically."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator.config import DomainPenalty
from orchestrator.finetune.domain_penalties import coral, domain_penalty, squared_mmd


def drawn(rows: int, *, seed: int, features: int = 4, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, features, generator=generator, dtype=torch.float64) + shift


def test_coral_is_the_squared_difference_of_covariances_over_four_d_squared() -> None:
    source, target = drawn(9, seed=1), 2 * drawn(7, seed=2)
    covariances = [np.cov(part.numpy(), rowvar=False) for part in (source, target)]
    expected = ((covariances[0] - covariances[1]) ** 2).sum() / (4 * 4**2)
    assert float(coral(source, target)) == pytest.approx(expected, rel=1e-12)


def test_mmd_is_the_biased_estimate_with_the_median_distance_for_a_scale() -> None:
    source, target = drawn(5, seed=1).numpy(), drawn(6, seed=2, shift=1.0).numpy()
    pooled = np.concatenate([source, target])
    distances = np.sqrt(((pooled[:, None] - pooled[None]) ** 2).sum(axis=2))
    # Of 55 pairs the 28th is in the middle.
    scale = np.sort(distances[np.triu_indices(11, 1)])[27]

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        squares = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        return float(np.exp(-squares / (2 * scale**2)).mean())

    expected = mean_kernel(source, source) + mean_kernel(target, target) - 2 * mean_kernel(source, target)
    assert float(squared_mmd(torch.from_numpy(source), torch.from_numpy(target))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["coral", "mmd"])
def test_equal_samples_are_no_distance_apart_and_others_are_the_farther_the_more_they_differ(
    kind: DomainPenalty,
) -> None:
    sample = drawn(40, seed=1)
    near, far = (float(domain_penalty(kind, sample, scale * drawn(40, seed=2) + scale - 1)) for scale in (1.0, 3.0))
    assert float(domain_penalty(kind, sample, sample)) == pytest.approx(0, abs=1e-6)
    assert 0 < near < far / 5


def test_gradients_reach_both_sides() -> None:
    source, target = drawn(5, seed=1).requires_grad_(), drawn(4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(coral, (source, target))
    # The scale of MMD's kernel is a constant to autograd: the gradient is that of a fixed one, downhill.
    before = squared_mmd(source, target + 2)
    (slope,) = torch.autograd.grad(before, target)
    assert float(squared_mmd(source, target + 2 - 0.1 * slope / slope.norm()).detach()) < float(before.detach())


def test_a_side_without_two_rows_has_no_distance() -> None:
    assert float(domain_penalty("coral", drawn(1, seed=1), drawn(9, seed=2))) == 0
    assert float(domain_penalty("none", drawn(9, seed=1), drawn(9, seed=2, shift=9))) == 0
