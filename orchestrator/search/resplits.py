"""Divides a group's training and validation samples anew, for races that no lucky split can win."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def resplit(
    labels: NDArray[np.int64],
    together: Sequence[str] | NDArray[Any],
    *,
    num_validation: int,
    seed: int,
    number: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the positions of training and of validation, both ascending, of re-split `number`.

    Every class gives validation its share, up to rounding, and samples with the same `together` stay on one side.
    Each split has at least one sample where there are two that may be parted.
    """
    keys, unit = np.unique(np.asarray(together), return_inverse=True)
    counts = np.zeros((len(keys), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (unit, labels), 1)
    wanted = counts.sum(axis=0) * (num_validation / len(labels))
    taken = np.zeros_like(wanted)
    chosen = np.zeros(len(keys), dtype=bool)
    generator = np.random.default_rng([seed, number])
    order = generator.permutation(len(keys))
    for index in order:
        # A unit is taken when that brings the classes nearer to what they should give; at a tie, by a coin.
        change = np.abs(wanted - taken - counts[index]).sum() - np.abs(wanted - taken).sum()
        if change < 0 or (change == 0 and generator.random() < 0.5):
            chosen[index] = True
            taken += counts[index]
    if len(keys) > 1 and chosen.all():
        chosen[order[-1]] = False
    if not chosen.any():
        chosen[order[0]] = len(keys) > 1
    is_validation = chosen[unit]
    return np.flatnonzero(~is_validation).astype(np.int64), np.flatnonzero(is_validation).astype(np.int64)
