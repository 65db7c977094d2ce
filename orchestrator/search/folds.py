"""Deals a group's samples into the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ConfigError

Positions = NDArray[np.int64]


def deal_folds(labels: Positions, together: Sequence[str] | NDArray[Any], *, count: int, seed: int) -> Positions:
    """Give the fold [n] of every sample, from 0 to `count` - 1; each fold has some.

    Samples with the same `together` are in one fold. Such units are dealt first, the largest first, each to the fold
    that has least of its classes; single samples then level what is left: where all are single, the folds' counts of
    a class differ by one at most, and so do their sizes. The order of the samples does not matter. Raises ConfigError
    for more folds than units.
    """
    keys, unit, unit_sizes = np.unique(np.asarray(together), return_inverse=True, return_counts=True)
    if len(keys) < count:
        raise ConfigError(
            "search.folds must be at most the images of every group, what is kept together counting once",
            value=f"{count} folds of {len(keys)}",
            remedy="Lower search.folds, or use fewer groups.",
        )
    # scikit-learn's StratifiedGroupKFold weighs single images against every fold too, which took 1.8 s for 10,000 of
    # them, and depends on their order.
    generator = np.random.default_rng([seed, count])
    dealt = np.full(len(labels), -1, dtype=np.int64)
    counts = np.zeros((count, int(labels.max()) + 1), dtype=np.int64)
    is_single = unit_sizes[unit] == 1
    _deal_units(dealt, counts, labels, np.where(is_single, -1, unit), generator)
    by_key = np.argsort(unit, kind="stable")
    singles = generator.permutation(by_key[is_single[by_key]])
    by_class = singles[np.argsort(labels[singles], kind="stable")]
    borders = np.flatnonzero(np.diff(labels[by_class])) + 1
    for members in np.split(by_class, borders) if len(by_class) else []:
        dealt[members] = _level(counts, int(labels[members[0]]), len(members))
    return dealt


def _deal_units(
    dealt: Positions, counts: NDArray[np.int64], labels: Positions, unit: Positions, generator: np.random.Generator
) -> None:
    """Deal units of several samples; `unit` is -1 for the others."""
    order = np.argsort(unit, kind="stable")
    order = order[unit[order] >= 0]
    units = np.split(order, np.flatnonzero(np.diff(unit[order])) + 1) if len(order) else []
    shuffled = [units[index] for index in generator.permutation(len(units))]
    totals = np.bincount(labels, minlength=counts.shape[1])
    for members in sorted(shuffled, key=len, reverse=True):
        classes = labels[members]
        crowded = (counts[:, classes] / totals[classes]).sum(axis=1)
        fold = int(np.lexsort((counts.sum(axis=1), crowded))[0])
        dealt[members] = fold
        np.add.at(counts[fold], classes, 1)


def _level(counts: NDArray[np.int64], label: int, num_samples: int) -> Positions:
    """Give the folds of single samples of a class: those that have least of it, of like ones the smallest."""
    fold, place = np.divmod(np.arange(len(counts) * num_samples), num_samples)
    chosen = fold[np.lexsort((counts.sum(axis=1)[fold], counts[fold, label] + place))[:num_samples]]
    counts[:, label] += np.bincount(chosen, minlength=len(counts))
    return chosen
