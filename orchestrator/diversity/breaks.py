"""Cuts sorted numbers into the groups that are most alike within: optimal, where k-means in general is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Places = NDArray[np.int64]


def natural_breaks(values: Values, weights: Values | Places, num_groups: int) -> list[int]:
    """Give the places, ascending, at which `num_groups` groups of ascending distinct values [m] begin, but the first.

    The sum over groups of weighted squared distances from their mean is the least possible (Fisher, "On grouping for
    maximum homogeneity", 1958; known as Jenks' natural breaks). Of equally good cuts the first is taken. Dynamic
    programming over the ends of groups; the best beginning of a group moves up with its end, so that halving the
    range finds it in m log m steps a group. At most m groups are made.
    """
    parts = min(num_groups, len(values))
    sums = _Sums(values, weights)
    ends = np.arange(len(values) + 1)
    best = sums.within(np.zeros_like(ends), ends)
    layers: list[Places] = []
    for part in range(2, parts + 1):
        best, begins = _with_one_more(best, sums, part)
        layers.append(begins)
    breaks: list[int] = []
    end = len(values)
    for begins in reversed(layers):
        end = int(begins[end])
        breaks.append(end)
    return breaks[::-1]


class _Sums:
    """Give the squared distances within any stretch of the values, from running sums."""

    def __init__(self, values: Values, weights: Values | Places) -> None:
        # Around their mean squares lose least to rounding.
        shifted = values - np.average(values, weights=weights)
        self._sums = [np.concatenate([[0.0], np.cumsum(weights * shifted**power)]) for power in (0, 1, 2)]

    def within(self, begins: Places, ends: Places) -> Values:
        """Sum up the values from `begins` up to but not `ends`, elementwise; 0 for empty stretches."""
        weight, total, squares = (sums[ends] - sums[begins] for sums in self._sums)
        explained = np.divide(total**2, weight, out=np.zeros_like(total), where=weight > 0)
        found: Values = np.maximum(0.0, squares - explained)
        return found


def _with_one_more(before: Values, sums: _Sums, part: int) -> tuple[Values, Places]:
    """Give the least cost of the first values in `part` groups for every end, and where the last group begins."""
    num_values = len(before) - 1
    best = np.full(num_values + 1, np.inf)
    begins = np.zeros(num_values + 1, dtype=np.int64)
    # Ends from low to high, whose last groups begin from first to last.
    open_ranges = [(part, num_values, part - 1, num_values - 1)]
    while open_ranges:
        low, high, first, last = open_ranges.pop()
        if low > high:
            continue
        end = (low + high) // 2
        candidates = np.arange(first, min(last, end - 1) + 1)
        costs = before[candidates] + sums.within(candidates, np.full_like(candidates, end))
        chosen = int(costs.argmin())
        best[end], begins[end] = costs[chosen], candidates[chosen]
        open_ranges += [(low, end - 1, first, int(begins[end])), (end + 1, high, int(begins[end]), last)]
    return best, begins
