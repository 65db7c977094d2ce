"""The record of what was spent on whom, what that gained, and what more of it promises."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value

SpendingPart = Literal["shared", "search", "race", "training", "baselines"]
BesidePart = Literal["subset_models", "arms", "retraining"]


class Spending(Value):
    """Add up work: its seconds, those of work side by side one after the other, and what it held meanwhile.

    Of work shared by the whole cluster, seconds are wall time. `gpu_hours` is 0 where no GPU was held and None where
    nobody has kept what was. `money` is by `cluster.cost_per_hour`, in its currency; None without it.
    """

    seconds: float = 0.0
    gpu_hours: float | None = 0.0
    money: float | None = None


class Gain(Value):
    """Say how much more accurate a model is than the cheapest baseline, on the same `num_images` test images.

    `interval` holds 95% of paired bootstrap resamples. `extra_seconds` and `extra_money` are what the model cost beyond
    that baseline's training. They are set against the points of accuracy only where the interval lies above 0:
    `seconds_per_point` and `money_per_point`, None elsewhere.
    """

    baseline: str
    num_images: int
    gain: float
    interval: tuple[float, float]
    extra_seconds: float
    extra_money: float | None = None
    seconds_per_point: float | None = None
    money_per_point: float | None = None


class Prospect(Value):
    """Say what more search promises, by the curve of `num_trials` trials that ended with a value.

    `chance` is that `num_trials` further ones, which would take `seconds` of trial time again, bring one better than
    the best by more than `least_gain`, the standard error of a difference of two trials; `chance_of_next` is that the
    next one does.
    """

    num_trials: int
    seconds: float
    least_gain: float
    chance: float
    chance_of_next: float


class SubsetInvestment(Value):
    """Charge a subset with its group's spending by its share of the group's training images, and say what it gained.

    `beside` is what was spent on other models for it; see `GroupInvestment`. `gain` is that of the model that serves
    the subset in the end. Where that is another one than its group's first model, it cost `beside` too, and
    `first_gain` is that of the first model, at its own cost; None elsewhere.
    """

    subset: str
    share: float
    spent: Spending
    gain: Gain | None = None
    first_gain: Gain | None = None
    beside: dict[BesidePart, Spending] = {}


class GroupInvestment(Value):
    """Hold what a group's first model cost, by part, what it gained, and what more search promises.

    `spent` is all parts but the baselines, which only serve to compare. Of what groups share, the group is charged by
    its share of all images.

    `beside` is what was spent on models beside the group's, none of it in `spent`: on those of single subsets, on the
    arms that transfer is judged by, and on training again what a subset falls back to or is regrouped into. A model for
    several subsets is charged to each by its training images.
    """

    group: str
    parts: dict[SpendingPart, Spending]
    spent: Spending
    gain: Gain | None = None
    prospect: Prospect | None = None
    beside: dict[BesidePart, Spending] = {}
    subsets: list[SubsetInvestment] = []


class Investment(Record):
    """Hold the investment in every group, in the order of groups; costs of resources as they were when it was made."""

    cost_per_hour: dict[str, float] = {}
    groups: list[GroupInvestment] = []
