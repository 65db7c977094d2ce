"""The measures of subsets as arrays: what they are, and how far off each may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import DiversityMeasure
from orchestrator.diversity.estimators import NORMAL_95
from orchestrator.errors import RecordError
from orchestrator.records import SubsetProfile

Values = NDArray[np.float64]


def values_of(subsets: Sequence[SubsetProfile], measures: Sequence[DiversityMeasure]) -> Values:
    """Give the measures [subsets, measures] as they stand. Raises RecordError where one was not taken."""
    return np.array([[_value_of(subset, measure) for measure in measures] for subset in subsets])


def deviations_of(subsets: Sequence[SubsetProfile], measures: Sequence[DiversityMeasure]) -> Values | None:
    """Give the standard deviations [subsets, measures] behind the intervals; None where a measure has none."""
    rows = []
    for subset in subsets:
        intervals: list[tuple[float, float] | None] = [getattr(subset, f"{measure}_interval") for measure in measures]
        known = [interval for interval in intervals if interval is not None]
        if len(known) < len(intervals):
            return None
        rows.append([(high - low) / (2 * NORMAL_95) for low, high in known])
    return np.array(rows)


def _value_of(subset: SubsetProfile, measure: DiversityMeasure) -> float:
    value: float | None = getattr(subset, measure)
    if value is None:
        raise RecordError(
            f"the profile must hold {measure} of subset {subset.subset}",
            remedy=f"Add {measure} to diversity.measures.",
        )
    return value
