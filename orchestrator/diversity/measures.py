"""The measures of subsets as arrays: what they are, and how far off each may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import DiversityMeasure
from orchestrator.errors import RecordError
from orchestrator.records import SubsetProfile

Values = NDArray[np.float64]


def values_of(subsets: Sequence[SubsetProfile], measures: Sequence[DiversityMeasure]) -> Values:
    """Give the measures [subsets, measures] as they stand. Raises RecordError where one was not taken."""
    return np.array([[_value_of(subset, measure) for measure in measures] for subset in subsets])


def deviations_of(subsets: Sequence[SubsetProfile], measures: Sequence[DiversityMeasure]) -> Values | None:
    """Give the standard deviations [subsets, measures] of the measures; None where one is not known.

    Not from the intervals: those end where a measure can go no further.
    """
    if any(measure not in subset.deviations for subset in subsets for measure in measures):
        return None
    return np.array([[subset.deviations[measure] for measure in measures] for subset in subsets])


def _value_of(subset: SubsetProfile, measure: DiversityMeasure) -> float:
    value: float | None = getattr(subset, measure)
    if value is None:
        raise RecordError(
            f"the profile must hold {measure} of subset {subset.subset}",
            remedy=f"Add {measure} to diversity.measures.",
        )
    return value
