"""Says in words, by rule from the numbers, what the measures of features leave open."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.diversity.transferability import LEAST_VARIANCE
from orchestrator.records import SubsetProfile
from orchestrator.reporting.wording import counted, number, shortened


def feature_notes(subsets: Sequence[SubsetProfile]) -> list[str]:
    """Say how far sketched scores may be off, and which subsets' features are all the same; else nothing."""
    return [said for said in (_sketched(subsets), _constant(subsets)) if said]


def _sketched(subsets: Sequence[SubsetProfile]) -> str:
    bounds = {found.subset: found.raw_feature_diversity_bounds for found in subsets}
    known = {name: found for name, found in bounds.items() if found is not None}
    if not known:
        return ""
    widest = max(known, key=lambda name: known[name][1] / known[name][0])
    low, high = known[widest]
    return (
        f"Features of {counted(len(known), 'subset')} were summed up in a sketch (diversity.sketch_above). The Vendi "
        f"score of all images is sure to lie within bounds, the widest for {widest}: {number(low, 1)} to "
        f"{number(high, 1)}. H-scores are at most those of all directions; LogME and Fisher ratios are of the "
        "sketch's. Feature diversity at equal numbers of images is not sketched."
    )


def _constant(subsets: Sequence[SubsetProfile]) -> str:
    alike = [found.subset for found in subsets if _is_constant(found)]
    if not alike:
        return ""
    return (
        f"The backbone gives all images of {counted(len(alike), 'subset')} the same features: "
        f"{shortened(alike, most=5)}. They part no classes: H-score and Fisher ratio are 0."
    )


def _is_constant(found: SubsetProfile) -> bool:
    between, within = found.variance_between, found.variance_within
    if between is None or within is None or found.num_images < 2:
        return False
    return max(between, within) <= LEAST_VARIANCE
