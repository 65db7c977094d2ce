"""Assigns subsets that arrive later to the groups that there are."""

from __future__ import annotations

import numpy as np

from orchestrator.diversity.distinctness import REDRAWS
from orchestrator.diversity.measures import deviations_of, values_of
from orchestrator.diversity.placement import place
from orchestrator.records import Assignment, Groups, Profile, SubsetProfile


def assign_subsets(profile: Profile, groups: Groups, *, min_images: int) -> list[Assignment]:
    """Give the group of every subset of a profile, ordered by name, by the rule that formed the groups.

    A subset of the profile that was grouped is assigned to its own group. The profile must have been measured as that
    one was: over the same split, by the same backbone, feature diversity compared at the same number of images. A
    subset with fewer images than that is assigned by what it scores, which is too low, and has no certainty; for the
    others it is the share of redraws that fall into the same group, when every value is moved by a normal error of its
    standard deviation, as in `distinctness.assignment_stability`, and the groups stay. Raises RecordError when the
    profile lacks a measure of the groups.
    """
    subsets = sorted(profile.subsets, key=lambda subset: subset.subset)
    return [_assignment(subset, groups, profile.rarefied_to, min_images) for subset in subsets]


def _assignment(subset: SubsetProfile, groups: Groups, compared_at: int | None, min_images: int) -> Assignment:
    measures, rule = groups.measures, groups.rule
    values, deviations = values_of([subset], measures), deviations_of([subset], measures)
    level = int(place(rule, values)[0])
    is_comparable = "feature_diversity" not in measures or compared_at is None or subset.num_images >= compared_at
    certainty = None
    if deviations is not None and is_comparable:
        # The same errors for every subset: its certainty does not change with the company that it comes in.
        errors = np.random.default_rng(0).standard_normal((REDRAWS, len(measures)))
        certainty = float((place(rule, values + deviations * errors) == level).mean())
    return Assignment(
        subset=subset.subset,
        group=groups.groups[level].name,
        num_images=subset.num_images,
        values=dict(zip(measures, values[0].tolist(), strict=True)),
        certainty=certainty,
        is_small=subset.num_images < min_images,
        is_comparable=is_comparable,
    )
