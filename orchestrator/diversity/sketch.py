"""Sums over very long feature directions in bounded memory, with bounds of what the sketch leaves open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import entr

from orchestrator.config import SKETCH_SIZE
from orchestrator.diversity.feature_sums import FeatureSums, add_classes, sum_classes

Directions = NDArray[np.float64]
Shares = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SketchedSums:
    """Hold Frequent Directions of unit directions (Liberty, "Simple and deterministic matrix sketching", 2013).

    With A the directions [n, d] of all images and B `rows` [at most `size`, d], every eigenvalue of A^T A - B^T B lies
    between 0 and `lost`, which is at most n / `size`, and little where few directions hold most of A (Ghashami et al.,
    "Frequent Directions", 2016). Images of each class and their sums of directions are exact. Sketches are merged by
    sketching their rows together; what they lost adds up.
    """

    rows: Directions
    lost: float
    counts: Mapping[str, int]
    sums: Mapping[str, Directions]
    size: int

    @classmethod
    def of(cls, directions: Directions, labels: Sequence[str], size: int = SKETCH_SIZE) -> SketchedSums:
        """Sketch directions [n, d] with their labels [n]."""
        rows, lost = directions[:size], 0.0
        for begin in range(size, len(directions), size):
            rows, loss = _shrink(np.concatenate([rows, directions[begin : begin + size]]), size)
            lost += loss
        counts, sums = sum_classes(directions, labels)
        return cls(rows=rows, lost=lost, counts=counts, sums=sums, size=size)

    def __add__(self, other: SketchedSums) -> SketchedSums:
        """Add the images of both; neither changes."""
        rows, loss = _shrink(np.concatenate([self.rows, other.rows]), self.size)
        counts, sums = add_classes(self, other)
        return SketchedSums(rows=rows, lost=self.lost + other.lost + loss, counts=counts, sums=sums, size=self.size)

    @property
    def num_images(self) -> int:
        """Count the images."""
        return sum(self.counts.values())

    def vendi_bounds(self) -> tuple[float, float]:
        """Give the least and the greatest Vendi score of order 1 that all images together can have.

        The eigenvalues [d] are those of the sketch plus 0 to `lost` each, and add up to the images: entropy is greatest
        where they are as even as that allows, and least where what is missing goes to the largest.
        """
        shares = np.zeros(max(self.rows.shape))
        squares = np.linalg.eigvalsh(self.rows @ self.rows.T)
        shares[: len(squares)] = squares[::-1].clip(0.0) / self.num_images
        # No more directions than dimensions, nor than images.
        shares, room = shares[: min(self.rows.shape[1], self.num_images)], self.lost / self.num_images
        return math.exp(_entropy(_steepest(shares, room))), math.exp(_entropy(_evenest(shares, room)))

    def on_own_axes(self) -> FeatureSums:
        """Give sums along the axes of the sketch alone, which hold the most of the directions.

        Squares are as great as they can be: an H-score is at most that of all axes.
        """
        squares, axes = np.linalg.eigh(self.rows @ self.rows.T)
        kept = squares > squares[-1] * np.finfo(float).eps * len(squares)
        basis = (axes[:, kept] / np.sqrt(squares[kept])).T @ self.rows
        return FeatureSums(
            outer=np.diag(squares[kept] + self.lost),
            counts=self.counts,
            sums={name: basis @ total for name, total in self.sums.items()},
        )


def _shrink(rows: Directions, size: int) -> tuple[Directions, float]:
    """Turn rows onto their axes and take the `size`-th largest square off all squares: fewer than `size` rows are left.

    Gives them and what was taken off; rows that are no more than `size` stay as they are.
    """
    if len(rows) <= size:
        return rows, 0.0
    squares, axes = np.linalg.eigh(rows @ rows.T)
    loss = max(0.0, float(squares[-size]))
    left = squares > loss
    scales = np.sqrt((squares[left] - loss) / squares[left])
    return (axes[:, left] * scales).T @ rows, loss


def _evenest(shares: Shares, room: float) -> Shares:
    """Raise descending shares by up to `room` each until they add up to 1, the smallest first and to one level."""
    if shares.sum() >= 1.0:
        return shares

    def raised(level: float) -> Shares:
        clipped: Shares = np.clip(level, shares, shares + room)
        return clipped

    highest = float(shares[0]) + room
    if raised(highest).sum() <= 1.0:
        return raised(highest)
    return raised(brentq(lambda level: float(raised(level).sum()) - 1.0, 0.0, highest, xtol=1e-15))


def _steepest(shares: Shares, room: float) -> Shares:
    """Raise descending shares by up to `room` each until they add up to 1, the largest first."""
    missing = max(0.0, 1.0 - float(shares.sum()))
    taken: Shares = np.clip(missing - room * np.arange(len(shares)), 0.0, room)
    return shares + taken


def _entropy(shares: Shares) -> float:
    return float(entr(shares / shares.sum()).sum())
