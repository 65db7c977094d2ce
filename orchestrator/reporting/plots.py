"""Plots over all groups: their diversity, and what their recipes gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from orchestrator.records import Evaluation, Groups, PooledComparison, Profile, SubsetProfile
from orchestrator.reporting.figures import FULL_WIDTH, INK, MUTED, Plot, draw_plot, group_color, label, panels
from orchestrator.reporting.findings import verdict
from orchestrator.reporting.wording import BASELINE_TITLES, MEASURE_TITLES, counted

MOST_NAMED_SUBSETS = 80
MOST_WRITTEN_VALUES = 40
POOLED = "all groups"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Place one subset in the plot of diversity."""

    profile: SubsetProfile
    y: float
    color: str


def diversity_plot(profile: Profile, groups: Groups) -> Plot:
    """Draw every subset as a bar for each measure with its interval, in the order and colours of the groups."""
    rows = _diversity_rows(profile, groups)
    measures = [name for name in MEASURE_TITLES if any(getattr(found, name) is not None for found in profile.subsets)]
    is_named = len(rows) <= MOST_NAMED_SUBSETS

    def draw(figure: Figure) -> None:
        columns = panels(figure, 1, len(measures) + 1, sharey=True)
        for axes, measure in zip(columns, measures, strict=False):
            intervals = [getattr(row.profile, f"{measure}_interval") for row in rows]
            _draw_bars(axes, rows, [getattr(row.profile, measure) for row in rows], intervals, digits=2)
            axes.set_title(MEASURE_TITLES[measure])
        _draw_bars(columns[-1], rows, [row.profile.num_images for row in rows], [None] * len(rows), digits=0)
        columns[-1].set_title("Images measured")
        columns[0].invert_yaxis()
        columns[0].set_yticks(
            [row.y for row in rows] if is_named else [],
            [label(row.profile.subset) for row in rows] if is_named else [],
        )
        patches = [Patch(color=group_color(i), label=group.name) for i, group in enumerate(groups.groups)]
        figure.legend(handles=patches, loc="outside upper left", ncols=min(len(patches), 7), title=None)

    height = 1.0 + 0.19 * rows[-1].y if is_named else 6.0
    alt = "Diversity of " + "; ".join(
        f"group {group.name}: {counted(len(group.subsets), 'subset')}, first measure from "
        f"{group.score_range[0]:.2f} to {group.score_range[1]:.2f}"
        for group in groups.groups
    )
    return draw_plot(draw, width=FULL_WIDTH, height=max(height, 2.0), alt=alt)


def _diversity_rows(profile: Profile, groups: Groups) -> list[_Row]:
    profiles = {found.subset: found for found in profile.subsets}
    first_measure = groups.measures[0]
    rows: list[_Row] = []
    y = 0.0
    for position, group in enumerate(groups.groups):
        members = [profiles[name] for name in group.subsets if name in profiles]
        for member in sorted(members, key=lambda found: (getattr(found, first_measure) or 0.0, found.subset)):
            rows.append(_Row(profile=member, y=y, color=group_color(position)))
            y += 1.0
        y += 0.6
    return rows


def _draw_bars(
    axes: Axes,
    rows: Sequence[_Row],
    values: Sequence[float | None],
    intervals: Sequence[tuple[float, float] | None],
    *,
    digits: int,
) -> None:
    known = [
        (row, value, interval)
        for row, value, interval in zip(rows, values, intervals, strict=True)
        if value is not None
    ]
    axes.barh(
        [row.y for row, *_ in known],
        [value for _, value, _ in known],
        height=0.74,
        color=[row.color for row, *_ in known],
    )
    for row, _, interval in known:
        if interval is not None:
            axes.plot(interval, (row.y, row.y), color=INK, linewidth=0.8, solid_capstyle="butt")
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.16, y=0.01)
    if len(rows) <= MOST_WRITTEN_VALUES:
        for row, value, interval in known:
            axes.annotate(
                f"{value:,.{digits}f}",
                (value if interval is None else max(value, interval[1]), row.y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=MUTED,
            )


@dataclass(frozen=True, kw_only=True)
class _Gain:
    """Place one comparison in the plot of gains, in percentage points."""

    baseline: str
    row: str
    gain: float
    interval: tuple[float, float]
    color: str
    marker: str


def gains_plot(
    groups: Groups, evaluations: Sequence[Evaluation], comparisons: Sequence[PooledComparison]
) -> Plot | None:
    """Draw what each group's recipe gains over each baseline, with intervals; None without a comparison."""
    gains = _gains(groups, evaluations, comparisons)
    if not gains:
        return None
    baselines = [name for name in BASELINE_TITLES if any(gain.baseline == name for gain in gains)]
    names = list(dict.fromkeys(gain.row for gain in gains))

    def draw(figure: Figure) -> None:
        for axes, baseline in zip(panels(figure, 1, len(baselines), sharey=True), baselines, strict=True):
            for gain in gains:
                if gain.baseline == baseline:
                    _draw_gain(axes, gain, names.index(gain.row))
            axes.axvline(0, color=INK, linewidth=1)
            axes.grid(axis="x")
            axes.set_title(f"over {BASELINE_TITLES[baseline]}")
            axes.set_xlabel("gain in test accuracy (points)")
            axes.set_yticks(range(len(names)), [label(name) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.tick_params(length=0)

    alt = "Gain in test accuracy of each recipe: " + "; ".join(
        f"{gain.row} over {BASELINE_TITLES[gain.baseline]} {gain.gain:+.1f} points, "
        f"interval {gain.interval[0]:+.1f} to {gain.interval[1]:+.1f}"
        for gain in gains
    )
    return draw_plot(draw, width=FULL_WIDTH, height=1.1 + 0.32 * len(names), alt=alt)


def _gains(groups: Groups, evaluations: Sequence[Evaluation], comparisons: Sequence[PooledComparison]) -> list[_Gain]:
    colors = {group.name: group_color(position) for position, group in enumerate(groups.groups)}
    of_groups = [
        _gain(
            found.name,
            evaluation.group,
            found.accuracy_gain,
            found.accuracy_gain_interval,
            colors.get(evaluation.group, INK),
            "o",
        )
        for evaluation in evaluations
        for found in evaluation.baselines
        if found.accuracy_gain is not None and found.accuracy_gain_interval is not None
    ]
    pooled = [
        _gain(found.baseline, POOLED, found.accuracy_gain, found.accuracy_gain_interval, INK, "D")
        for found in comparisons
    ]
    return of_groups + pooled


def _gain(baseline: str, row: str, gain: float, interval: tuple[float, float], color: str, marker: str) -> _Gain:
    return _Gain(
        baseline=baseline,
        row=row,
        gain=100 * gain,
        interval=(100 * interval[0], 100 * interval[1]),
        color=color,
        marker=marker,
    )


def _draw_gain(axes: Axes, gain: _Gain, y: int) -> None:
    axes.plot(gain.interval, (y, y), color=gain.color, linewidth=2, solid_capstyle="butt")
    is_clear = verdict(gain.interval) != "unclear"
    axes.plot(
        [gain.gain],
        [y],
        marker=gain.marker,
        markersize=6.5,
        color=gain.color,
        markerfacecolor=gain.color if is_clear else "white",
        markeredgewidth=1.6,
    )
