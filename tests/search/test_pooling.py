"""Scores of groups inform each other as far as the groups are alike."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.search.pooling import pool_scores

LEVELS = np.array([0.6, 0.7, 0.9])
EFFECTS = np.array([-0.10, -0.02, 0.0, 0.04, 0.08])


def test_without_noise_levels_and_effects_come_back() -> None:
    scores = LEVELS[:, None] + EFFECTS
    pooled = pool_scores(scores, np.full_like(scores, 1e-6))
    np.testing.assert_allclose(pooled.recipe_scores, LEVELS.mean() + EFFECTS, atol=1e-6)
    np.testing.assert_allclose(pooled.shrunk, scores, atol=1e-6)
    assert pooled.interaction_variance == pytest.approx(0, abs=1e-6)


def test_noise_alone_is_shrunk_away() -> None:
    rng = np.random.default_rng(1)
    truth = LEVELS[:, None] + np.linspace(-0.1, 0.1, 30)
    scores = truth + rng.normal(0, 0.03, truth.shape)
    pooled = pool_scores(scores, np.full_like(scores, 0.03**2))
    assert np.abs(pooled.shrunk - truth).mean() < 0.8 * np.abs(scores - truth).mean()


def test_groups_that_truly_differ_keep_their_own_scores() -> None:
    rng = np.random.default_rng(2)
    truth = LEVELS[:, None] + EFFECTS.repeat(4) + rng.normal(0, 0.08, (3, 20))
    pooled = pool_scores(truth, np.full_like(truth, 0.005**2))
    assert pooled.interaction_variance == pytest.approx(0.08**2, rel=0.6)
    np.testing.assert_allclose(pooled.shrunk, truth, atol=0.01)


def test_recipes_that_a_group_did_not_try_are_left_open_and_bias_nobody() -> None:
    scores = LEVELS[:, None] + EFFECTS
    scores[0, 0] = scores[1, 4] = np.nan
    pooled = pool_scores(scores, np.full_like(scores, 1e-6))
    np.testing.assert_allclose(pooled.recipe_scores, LEVELS.mean() + EFFECTS, atol=1e-3)
    assert np.isnan(pooled.shrunk[0, 0]) and np.isfinite(pooled.shrunk[0, 1:]).all()


def test_a_recipe_that_nobody_tried_has_no_score() -> None:
    scores = np.array([[0.5, np.nan], [0.6, np.nan]])
    pooled = pool_scores(scores, np.full_like(scores, 1e-4))
    assert np.isnan(pooled.recipe_scores[1]) and np.isfinite(pooled.recipe_scores[0])


def test_the_order_of_groups_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    scores, variances = rng.uniform(0.5, 0.9, (4, 6)), rng.uniform(1e-4, 1e-3, (4, 6))
    order = np.array([2, 0, 3, 1])
    one, other = pool_scores(scores, variances), pool_scores(scores[order], variances[order])
    np.testing.assert_allclose(one.recipe_scores, other.recipe_scores)
    np.testing.assert_allclose(one.shrunk[order], other.shrunk)
