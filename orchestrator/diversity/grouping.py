"""Groups of subsets whose samples are alike in diversity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from orchestrator.config import DiversityMeasure, GroupingConfig
from orchestrator.diversity.breaks import natural_breaks
from orchestrator.diversity.distinctness import (
    DIFFERENT,
    MOST_REDRAWN,
    assignment_stability,
    difference_p_value,
    is_indistinct,
)
from orchestrator.diversity.measures import deviations_of, values_of
from orchestrator.diversity.placement import place, scored, standardized, ungrouped, with_borders, with_centres
from orchestrator.errors import ConfigError, DataError, RecordError
from orchestrator.records import Group, GroupingRule, Groups, Profile, SubsetProfile

GROUPING_VERSION = 3

_MOST_GROUPS = 6
_MOST_SILHOUETTES = 2000

Values = NDArray[np.float64]
Levels = NDArray[np.int64]


def group_subsets(profile: Profile, config: GroupingConfig, measures: Sequence[DiversityMeasure]) -> Groups:
    """Put every subset into one group, in ascending order of diversity.

    `thresholds` cut the first measure, a subset on a border going up. `quantiles` make groups of as equal
    numbers of subsets as ties allow, ties staying together, by the measure, or by the mean of several that
    are standardised. `jenks` cuts the same scores where the groups are most alike within. `kmeans` clusters the
    standardised measures; its clusters are ordered by their mean. Groups that nothing falls into are not formed: there
    are fewer than asked for when there are fewer distinct values. The number `auto` is that of two to six with the
    greatest mean silhouette (Rousseeuw, "Silhouettes", 1987) over the standardised measures; one where fewer than
    three subsets differ.

    What was found is kept as a rule, by which any subset falls into a group: borders midway between groups (with
    `thresholds`, these where both sides are groups), or with `kmeans` the nearest centre. Subsets below
    `config.min_images` have no part in forming it; they fall where it puts them and are named in `small_subsets`.

    Where the measures have intervals, every group says how stable its subsets' places are, and all of them how likely
    the large subsets differ as much by chance; when that is more than 0.05, `config.on_indistinct` keeps the groups,
    merges them into one, or raises DataError. Raises RecordError when the profile has no subsets or lacks a
    measure, and ConfigError when every subset is below `config.min_images`.
    """
    subsets = sorted(profile.subsets, key=lambda subset: subset.subset)
    if not subsets:
        raise RecordError(
            "a profile must hold at least one subset",
            remedy="Check that data.split leaves images for training, or set diversity.split to all.",
        )
    values = values_of(subsets, measures)
    large = np.array([subset.num_images >= config.min_images for subset in subsets])
    if not large.any():
        raise ConfigError(
            f"grouping.min_images must leave at least one of {len(subsets)} subsets",
            value=config.min_images,
            remedy=f"Lower it to {max(subset.num_images for subset in subsets)} or less.",
        )
    deviations = deviations_of(subsets, measures)
    p_value = None if deviations is None else difference_p_value(values[large], deviations[large])
    rule = _settle(_form(values[large], config), values[large], p_value, config)
    levels = place(rule, values)
    num_groups = int(levels.max()) + 1

    def regrouped(redrawn: Values) -> Levels:
        # Thresholds are given, whatever the subsets measure.
        return place(rule if config.method == "thresholds" else _form(redrawn[large], config), redrawn)

    stability = None
    if deviations is not None and num_groups > 1 and len(subsets) <= MOST_REDRAWN:
        stability = assignment_stability(values, deviations, levels, regrouped, seed=0)
    return Groups(
        groups=[
            _group(name, np.flatnonzero(levels == level).tolist(), subsets, values, large, stability)
            for level, name in enumerate(group_names(num_groups))
        ],
        method=config.method,
        measures=list(measures),
        difference_p_value=p_value,
        rule=rule,
    )


def _settle(rule: GroupingRule, values: Values, p_value: float | None, config: GroupingConfig) -> GroupingRule:
    """Do what is wanted where chance may have made the groups; elsewhere they stay as they are."""
    if p_value is None or not is_indistinct(p_value) or not place(rule, values).any():
        return rule
    if config.on_indistinct == "fail":
        raise DataError(
            f"subsets must differ beyond chance, p at most {DIFFERENT:g}, to be grouped",
            value=f"p = {p_value:.2g}",
            remedy="Measure more images, group by another measure, or set grouping.on_indistinct to keep or merge.",
        )
    return ungrouped(values) if config.on_indistinct == "merge" else rule


def group_names(num_groups: int) -> list[str]:
    """Name groups in ascending order of diversity: low, medium and high for three, g0, g1, ... otherwise."""
    if num_groups == 3:
        return ["low", "medium", "high"]
    return [f"g{index}" for index in range(num_groups)]


def _form(values: Values, config: GroupingConfig) -> GroupingRule:
    """Form groups of subsets with these values [subsets, measures]: none of them is empty."""
    rule = ungrouped(values)
    if config.method == "thresholds":
        levels = np.searchsorted(config.thresholds, values[:, 0], side="right").astype(np.int64)
        return with_borders(rule, values, levels, config.thresholds)
    levels = _formed(scored(rule, values), standardized(rule, values), config.method, config.num_groups)
    return (with_centres if config.method == "kmeans" else with_borders)(rule, values, levels)


def _formed(scores: Values, points: Values, method: str, num_groups: int | Literal["auto"]) -> Levels:
    if num_groups == "auto":
        return _best_parted(scores, points, method)
    if method == "kmeans":
        return _cluster_levels(points, num_groups)
    distinct, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    breaks = (natural_breaks if method == "jenks" else _quantile_breaks)(distinct, counts, num_groups)
    levels: Levels = np.searchsorted(breaks, np.arange(len(distinct)), side="right")[place].astype(np.int64)
    return levels


def _best_parted(scores: Values, points: Values, method: str) -> Levels:
    """Form the number of groups whose members are nearest to their own and farthest from the next."""
    best, found = -np.inf, np.zeros(len(scores), dtype=np.int64)
    for num_groups in range(2, min(_MOST_GROUPS, len(np.unique(points, axis=0)) - 1) + 1):
        levels = _formed(scores, points, method, num_groups)
        # A few of many, and one of every level at least: a silhouette needs all distances between them.
        few = np.linspace(0, len(points) - 1, min(len(points), _MOST_SILHOUETTES)).astype(np.int64)
        rows = np.union1d(few, np.unique(levels, return_index=True)[1])
        silhouette = float(silhouette_score(points[rows], levels[rows]))
        if silhouette > best:
            best, found = silhouette, levels
    return found


def _quantile_breaks(distinct: Values, counts: Levels, num_groups: int) -> list[int]:
    """Cut ascending distinct scores [m] as near to equal numbers as ties allow: where all parts but the first begin."""
    ends = np.cumsum(counts)
    num_parts = min(num_groups, len(distinct))
    borders = [0]
    for part in range(1, num_parts):
        # Every part holds at least one distinct score: so many are left to the parts before and after.
        first, last = borders[-1] + 1, len(distinct) - (num_parts - part)
        off_target = np.abs(ends[first - 1 : last] * num_parts - ends[-1] * part)
        borders.append(first + int(off_target.argmin()))
    return borders[1:]


def _cluster_levels(points: Values, num_groups: int) -> Levels:
    """Cluster points [subsets, measures] and number the clusters by the mean of their members."""
    num_clusters = min(num_groups, len(np.unique(points, axis=0)))
    clusters = np.asarray(KMeans(num_clusters, n_init=10, random_state=0).fit_predict(points))
    found = np.unique(clusters)
    means = [points[clusters == cluster].mean() for cluster in found]
    ranks = np.argsort(np.argsort(means, kind="stable"), kind="stable")
    levels: Levels = ranks[np.searchsorted(found, clusters)].astype(np.int64)
    return levels


def _group(
    name: str,
    members: Sequence[int],
    subsets: Sequence[SubsetProfile],
    values: Values,
    large: NDArray[np.bool_],
    stability: NDArray[np.float64] | None,
) -> Group:
    scores = values[members, 0]
    return Group(
        name=name,
        subsets=[subsets[index].subset for index in members],
        num_images=sum(subsets[index].num_images for index in members),
        score_range=(float(scores.min()), float(scores.max())),
        small_subsets=[subsets[index].subset for index in members if not large[index]],
        stability={} if stability is None else {subsets[index].subset: float(stability[index]) for index in members},
    )
