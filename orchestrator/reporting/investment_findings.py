"""Says in words what was invested in a group, what that gained, and what more of it promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.records import BesidePart, Gain, GroupInvestment, Report, Spending, SubsetInvestment
from orchestrator.reporting.findings import verdict
from orchestrator.reporting.wording import (
    ABSENT,
    BASELINE_TITLES,
    counted,
    duration,
    enumerated,
    in_words,
    number,
    points,
    points_interval,
    shortened,
)

_MOST_NAMED = 5

PART_TITLES = {
    "search": "search",
    "race": "race of the finalists",
    "training": "final training",
    "shared": "share of common work",
    "baselines": "baselines",
}

BESIDE_TITLES: dict[BesidePart, str] = {
    "subset_models": "models of single subsets",
    "arms": "models that transfer is judged by",
    "retraining": "models that subsets were moved to",
}


def money(value: float | None) -> str:
    """Write an amount in the currency of `cluster.cost_per_hour`: with cents, or three digits of less than 1."""
    if value is None:
        return ABSENT
    return number(value) if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def part_lines(found: GroupInvestment) -> list[str]:
    """Write what each part took, those of which the model's own costs are the sum."""
    return [
        f"{title} {duration(found.parts[part].seconds)}"
        for part, title in PART_TITLES.items()
        if part != "baselines" and part in found.parts and found.parts[part].seconds > 0
    ]


def beside_lines(beside: Mapping[BesidePart, Spending]) -> list[str]:
    """Write what models beside the group's took, each kind by itself."""
    return [f"{title} {duration(beside[part].seconds)}" for part, title in BESIDE_TITLES.items() if part in beside]


def price(gain: Gain | None) -> str:
    """Write what a point of accuracy cost beyond the baseline; a dash where nothing was surely gained."""
    if gain is None or gain.seconds_per_point is None:
        return ABSENT
    if gain.extra_seconds <= 0:
        return "none"
    spent = duration(gain.seconds_per_point)
    return spent if gain.money_per_point is None else f"{spent}, {money(gain.money_per_point)}"


def investment_finding(found: GroupInvestment) -> str:
    """State what was spent on a group, what it gained over the cheapest baseline, and the chance that more would."""
    said = (_spent(found), _gained(found.gain), _spent_beside(found), shipped_finding(found), _promised(found))
    return " ".join(part for part in said if part)


def investment_summary(report: Report) -> str:
    """Sum up all groups in a line; nothing where nothing was accounted for."""
    if report.investment is None or not report.investment.groups:
        return ""
    groups = report.investment.groups
    gained = [group for group in groups if group.gain and verdict(group.gain.interval) == "better"]
    total = _total([spent for group in groups for spent in (group.spent, *group.beside.values())])
    chances = [f"{group.prospect.chance:.0%} ({group.group})" for group in groups if group.prospect]
    promised = f" Chance that as many trials again gain anything: {', '.join(chances[:5])}." if chances else ""
    more = f" {counted(len(report.advice), 'piece')} of advice in the report." if report.advice else ""
    return (
        f"Investment: {_amounts(total)}; a clear gain over the cheapest baseline in {len(gained)} of "
        f"{counted(len(groups), 'group')}.{promised}{more}"
    )


def _spent(found: GroupInvestment) -> str:
    parts = part_lines(found)
    listed = f": {enumerated(parts)}" if len(parts) > 1 else ""
    return f"{_amounts(found.spent)} were spent{listed}."


def _spent_beside(found: GroupInvestment) -> str:
    if not found.beside:
        return ""
    amounts = _amounts(_total(list(found.beside.values())))
    return f"Beside it {amounts} were spent on {enumerated(beside_lines(found.beside))}."


def shipped_finding(found: GroupInvestment) -> str:
    """State what subsets gain that another model serves than their group's first one; nothing without such subsets."""
    served = [subset for subset in found.subsets if subset.first_gain is not None]
    gains = [f"{subset.subset} {_against_first(subset)}" for subset in served]
    if not gains:
        return ""
    return (
        f"{counted(len(gains), 'subset')} {'is' if len(gains) == 1 else 'are'} served by another model; over the same "
        f"baseline gained: {shortened(gains, most=_MOST_NAMED, separator='; ')}."
    )


def _against_first(subset: SubsetInvestment) -> str:
    gain, first = subset.gain, subset.first_gain
    if gain is None or first is None:
        return ABSENT
    return f"{points(gain.gain)} points {points_interval(gain.interval)}, the group's first model {points(first.gain)}"


def _total(parts: Sequence[Spending]) -> Spending:
    return Spending(
        seconds=sum(part.seconds for part in parts),
        gpu_hours=_sum([part.gpu_hours for part in parts]),
        money=_sum([part.money for part in parts]),
    )


def _amounts(spent: Spending) -> str:
    amounts = [f"{duration(spent.seconds)} of work"]
    if spent.gpu_hours:
        amounts.append(f"{number(spent.gpu_hours, 3)} GPU-hours")
    if spent.money is not None:
        amounts.append(f"{money(spent.money)} by cluster.cost_per_hour")
    return ", ".join(amounts)


def _gained(gain: Gain | None) -> str:
    if gain is None:
        return "There is no baseline to tell what that gained."
    title = BASELINE_TITLES.get(gain.baseline, in_words(gain.baseline))
    stated = (
        f"The cheapest baseline, {title}, takes {duration(gain.extra_seconds)} less"
        if gain.extra_seconds > 0
        else f"The cheapest baseline, {title}, takes no less"
    )
    measured = f"{points(gain.gain)} points {points_interval(gain.interval)}"
    judged = verdict(gain.interval)
    if judged == "better":
        each = f": {price(gain)} for each" if gain.extra_seconds > 0 else ""
        return f"{stated}; {measured} of accuracy were gained over it{each}."
    if judged == "worse":
        return f"{stated}, and is better: {measured}."
    return f"{stated}; no clear gain over it: {measured}."


def _promised(found: GroupInvestment) -> str:
    prospect = found.prospect
    if prospect is None:
        return ""
    return (
        f"As many trials again ({prospect.num_trials}, {duration(prospect.seconds)} of trial time) would bring one "
        f"that is better beyond noise with a chance of {prospect.chance:.0%}, the next one alone with "
        f"{prospect.chance_of_next:.0%}."
    )


def _sum(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
