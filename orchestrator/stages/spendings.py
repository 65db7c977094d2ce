"""Adds up what work spent: its seconds, the GPU-hours that it held, and money by the prices of resources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from orchestrator.config import ResourceCosts
from orchestrator.records import Spending

Resources = Mapping[str, float]


def priced(seconds: float, held: Resources, prices: ResourceCosts | None) -> Spending:
    """Give what work spent that held these resources for so long; without any, nobody has kept what it held."""
    if not held and seconds > 0:
        return Spending(seconds=seconds, gpu_hours=None)
    hours = seconds / 3600
    cpu_hours, gpu_hours = hours * held.get("CPU", 0.0), hours * held.get("GPU", 0.0)
    money = None if prices is None else cpu_hours * prices.CPU + gpu_hours * prices.GPU
    return Spending(seconds=seconds, gpu_hours=gpu_hours, money=money)


def add_up(*parts: Spending) -> Spending:
    """Add up spendings; what one of them does not know, the sum does not."""
    if not parts:
        return Spending()
    return reduce(
        lambda one, other: Spending(
            seconds=one.seconds + other.seconds,
            gpu_hours=plus(one.gpu_hours, other.gpu_hours),
            money=plus(one.money, other.money),
        ),
        parts,
    )


def plus(one: float | None, other: float | None) -> float | None:
    """Add amounts, of which neither may be known."""
    return None if one is None or other is None else one + other


def scaled(spending: Spending, share: float) -> Spending:
    """Give a share of a spending, from 0 to 1."""
    return Spending(
        seconds=share * spending.seconds,
        gpu_hours=None if spending.gpu_hours is None else share * spending.gpu_hours,
        money=None if spending.money is None else share * spending.money,
    )
