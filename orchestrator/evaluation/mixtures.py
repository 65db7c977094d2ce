"""The shares of classes that make a mixture most likely, by expectation maximisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]

MOST_CYCLES = 300
# In nats, over all that was observed: far below what tells one estimate from another.
_TOLERANCE = 1e-3
_LEAST_LENGTH = 1.01


@dataclass(frozen=True, kw_only=True, eq=False)
class MixtureFit:
    """Hold the shares [K] of classes, above 0 with a sum of 1, and whether no others are more likely by 0.001 nats."""

    shares: Shares
    is_converged: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """Hold where a step of expectation maximisation leads, and what is known of where it began."""

    shares: Shares
    value: float
    gap: float


def most_likely_shares(
    likelihoods: NDArray[np.floating], weights: NDArray[np.floating], pseudo: Shares, start: Shares
) -> MixtureFit:
    """Maximise sum_i w_i ln sum_k F_ik p_k + sum_k a_k ln p_k over shares p [K].

    `likelihoods` F [n, K] of what was observed are known up to a factor for each row, no row is 0; `weights` w [n] say
    how often it was; `pseudo` a [K] above 0 are images of known classes, which keep every share above 0. The function
    is concave, and its greatest value is at most `max_k dF/dp_k - sum w - sum a` above that of p: what ends the search.

    Expectation maximisation (Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", 2002), each two of its steps extrapolated where that is likelier (squared iterative method of
    Varadhan and Roland, "Simple and globally convergent methods for accelerating the convergence of any EM algorithm",
    2008): classes that are hard to tell apart else take thousands. At most 300 times three steps are taken.
    """
    shares = start
    for _ in range(MOST_CYCLES):
        first = _step(likelihoods, weights, pseudo, shares)
        if first.gap <= _TOLERANCE:
            return MixtureFit(shares=shares, is_converged=True)
        second = _step(likelihoods, weights, pseudo, first.shares)
        third = _step(likelihoods, weights, pseudo, _extrapolate(shares, first.shares, second.shares))
        shares = third.shares if third.value >= second.value else second.shares
    return MixtureFit(shares=shares, is_converged=False)


def _step(likelihoods: NDArray[np.floating], weights: NDArray[np.floating], pseudo: Shares, shares: Shares) -> _Step:
    total = float(weights.sum() + pseudo.sum())
    mixed = likelihoods @ shares
    slopes = (weights / mixed) @ likelihoods + pseudo / shares
    value = float(weights @ np.log(mixed) + pseudo @ np.log(shares))
    # The sum is 1 but for rounding, which the next steps would carry on.
    led = shares * slopes
    return _Step(shares=led / led.sum(), value=value, gap=float(slopes.max()) - total)


def _extrapolate(start: Shares, first: Shares, second: Shares) -> Shares:
    """Go on from two steps as far as they promise and every share stays above 0; at a length of 1 that is `second`."""
    change = first - start
    bend = (second - first) - change
    size = float(np.linalg.norm(bend))
    length = max(1.0, float(np.linalg.norm(change)) / size) if size > 0.0 else 1.0
    while length > _LEAST_LENGTH:
        jump: Shares = start + 2 * length * change + length**2 * bend
        if (jump > 0.0).all():
            return jump
        length = (length + 1.0) / 2.0
    return second
