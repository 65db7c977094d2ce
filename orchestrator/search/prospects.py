"""Says how likely more trials are to bring a better one, from the curve of those that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_TRIALS = 4

_MOST_IN_TAIL = 100
# How much more later trials are worth: 1 is a search that learns nothing.
_TRENDS = np.array([1.0, 1.5, 2.0, 3.0])
_TREND_PRIOR = np.array([0.55, 0.27, 0.13, 0.05])
# Near its top a smooth surface of 2, 3, 4 and 8 dimensions has the shapes -1, -2/3, -1/2 and -1/4; noise has 0.
_SHAPES = np.array([-1.0, -0.75, -0.5, -0.25, -0.1, 0.1])
_SHAPE_PRIOR = np.array([0.20, 0.25, 0.25, 0.15, 0.10, 0.05])
_SCALES = np.geomspace(0.3, 2.5, 12)
_BELOW = np.linspace(0.05, 0.95, 10)

Grid = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Tail:
    """Hold what lies above a threshold: `excesses` [k] over it, what trials had them, and where a gain begins."""

    excesses: NDArray[np.float64]
    is_above: NDArray[np.bool_]
    gain_from: float
    scale: float


def chance_of_gain(values: Sequence[float], *, further: int, least_gain: float) -> float | None:
    """Give the chance that one of `further` trials is better than the best by more than `least_gain`.

    `values` are those of the trials that ended, in that order, greater being better. `least_gain` above 0 is what noise
    alone may bring, in their unit; the validation scores of trials are compared, noise and all. None for fewer than
    four values.

    Trial i is the best of a_i draws from one distribution, a_i = i^(t - 1): t = 1 are exchangeable trials, of which
    m more bring a new best with chance m / (n + m); with t above 1 a search learns, and the chance is greater (the F^a
    scheme: Yang, "On the distribution of the inter-record times in an increasing population", 1975). The upper half of
    the values has a generalised Pareto tail (Pickands, "Statistical inference using extreme order statistics", 1975);
    of the others it only counts that they lie below. The chance is the mean over a grid of trends, shapes, scales and
    shares below, weighted by prior and likelihood: few trials leave much of the prior. On made searches (random,
    learning and saturated ones) chances up to 0.4 are right to within 0.1; above, where few lie, they are up to 0.3 too
    high.
    """
    if len(values) < LEAST_TRIALS:
        return None
    found = np.asarray(values, dtype=np.float64)
    tail = _tail_of(found, least_gain)
    places = np.arange(1, len(found) + further + 1, dtype=np.float64)
    logs, chances = [], []
    for trend, prior in zip(_TRENDS, _TREND_PRIOR, strict=True):
        draws = places ** (trend - 1.0)
        draws /= draws[: len(found)].mean()
        logs.append(np.log(prior) + _log_likelihood(tail, draws[: len(found)]))
        chances.append(1.0 - _below(tail, tail.gain_from) ** draws[len(found) :].sum())
    weights = np.exp(np.array(logs) - np.max(logs))
    return float((weights * np.array(chances)).sum() / weights.sum())


def _tail_of(values: NDArray[np.float64], least_gain: float) -> _Tail:
    threshold = np.quantile(values, max(0.5, 1.0 - _MOST_IN_TAIL / len(values)))
    is_above = values > threshold
    excesses = values[is_above] - threshold
    # Values that noise rounds to the same one are no certain end of the tail.
    scale = max(float(excesses.mean()) if len(excesses) else 0.0, least_gain / 2, 1e-9)
    return _Tail(excesses, is_above, float(values.max() - threshold) + least_gain, scale)


def _log_likelihood(tail: _Tail, draws: NDArray[np.float64]) -> Grid:
    """Give the log of prior and likelihood of the tail [shares below, shapes, scales]."""
    above, shape, scale = draws[tail.is_above], _SHAPES[:, None, None], tail.scale * _SCALES[None, :, None]
    inner = 1.0 + shape * tail.excesses / scale
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(inner > 0, -np.log(scale) - (1 / shape + 1) * np.log(inner), -np.inf).sum(axis=-1)
    rest = np.log1p(-_BELOW)[:, None, None] * len(above) + np.log(above).sum() + density
    powers = ((above - 1.0) * np.log(_below(tail, tail.excesses))).sum(axis=-1)
    under = draws[~tail.is_above].sum() * np.log(_BELOW)[:, None, None]
    found: Grid = np.log(_SHAPE_PRIOR)[:, None] + under + rest + powers
    return found


def _below(tail: _Tail, excess: float | NDArray[np.float64]) -> Grid:
    """Give the chance that one draw lies below an excess over the threshold [shares, shapes, scales(, excesses)]."""
    extra = (1,) * np.ndim(excess)
    shape, scale = _SHAPES.reshape(-1, 1, *extra), (tail.scale * _SCALES).reshape(1, -1, *extra)
    inner = np.maximum(1.0 + shape * excess / scale, 0.0)
    with np.errstate(divide="ignore"):
        beyond = np.where(inner > 0, inner ** (-1 / shape), 0.0)
    below: Grid = 1.0 - (1.0 - _BELOW.reshape(-1, 1, 1, *extra)) * beyond
    return below
