import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from orchestrator.evaluation.mixtures import most_likely_shares

Values = NDArray[np.float64]


def gaussian_likelihoods(apart: float, num_images: int = 300, seed: int = 0) -> Values:
    """Images of five classes, mostly of the first two."""
    rng = np.random.default_rng(seed)
    means = apart * rng.normal(size=(5, 5))
    truth = rng.choice(5, size=num_images, p=[0.6, 0.3, 0.1, 0.0, 0.0])
    features = means[truth] + rng.normal(size=(num_images, 5))
    return np.exp(-0.5 * ((features[:, None] - means) ** 2).sum(axis=-1))


@pytest.mark.parametrize("apart", [1.0, 0.4])
def test_shares_are_where_a_general_optimizer_finds_the_greatest_likelihood(apart: float) -> None:
    likelihoods = gaussian_likelihoods(apart)
    weights, pseudo = np.random.default_rng(1).exponential(size=300), np.full(5, 0.5)
    found = most_likely_shares(likelihoods, weights, pseudo, np.full(5, 0.2))

    def loss(scores: Values) -> float:
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        return -float(weights @ np.log(likelihoods @ shares) + pseudo @ np.log(shares))

    assert found.is_converged and found.shares.sum() == pytest.approx(1.0)
    assert loss(np.log(found.shares)) <= minimize(loss, np.zeros(5)).fun + 1e-3


def test_the_start_does_not_matter() -> None:
    likelihoods, weights, pseudo = gaussian_likelihoods(0.5), np.ones(300), np.full(5, 0.5)
    starts = [np.full(5, 0.2), np.array([0.9, 0.025, 0.025, 0.025, 0.025])]
    one, other = (most_likely_shares(likelihoods, weights, pseudo, start).shares for start in starts)
    np.testing.assert_allclose(one, other, atol=0.01)


def test_classes_that_look_the_same_share_as_the_known_images_do() -> None:
    likelihoods = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = most_likely_shares(likelihoods, np.array([60.0, 40.0]), np.array([0.2, 0.4, 0.4]), np.full(3, 1 / 3))
    assert found.is_converged
    assert found.shares[1] / found.shares[0] == pytest.approx(2.0, rel=0.1)
    assert found.shares[2] == pytest.approx(40.4 / 101, abs=1e-3)


def test_a_search_that_may_take_no_more_steps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.evaluation.mixtures.MOST_CYCLES", 1)
    found = most_likely_shares(gaussian_likelihoods(0.4), np.ones(300), np.full(5, 0.5), np.full(5, 0.2))
    assert not found.is_converged and found.shares.sum() == pytest.approx(1.0)
