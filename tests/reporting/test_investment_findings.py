import pytest

from orchestrator.records import Gain, GroupInvestment, Investment, Prospect, Report, Spending, SubsetInvestment
from orchestrator.reporting.investment_findings import (
    investment_finding,
    investment_summary,
    money,
    price,
    shipped_finding,
)


def a_gain(interval: tuple[float, float] = (0.05, 0.15), **changes: object) -> Gain:
    fields = {
        "baseline": "head_only",
        "num_images": 100,
        "gain": 0.1,
        "interval": interval,
        "extra_seconds": 120.0,
        "seconds_per_point": 12.0 if interval[0] > 0 else None,
    }
    return Gain.model_validate({**fields, **changes})


def an_investment(group: str = "low", **changes: object) -> GroupInvestment:
    fields = {
        "group": group,
        "parts": {
            "shared": Spending(seconds=8.0),
            "search": Spending(seconds=100.0),
            "race": Spending(seconds=0.0),
            "training": Spending(seconds=32.0),
            "baselines": Spending(seconds=50.0),
        },
        "spent": Spending(seconds=140.0, gpu_hours=0.02, money=0.051),
        "gain": a_gain(money_per_point=0.005),
        "prospect": Prospect(num_trials=12, seconds=100.0, least_gain=0.02, chance=0.21, chance_of_next=0.03),
    }
    return GroupInvestment.model_validate({**fields, **changes})


def test_the_finding_says_what_was_spent_gained_and_promised() -> None:
    assert investment_finding(an_investment()) == (
        "2 min 20 s of work, 0.020 GPU-hours, 0.051 by cluster.cost_per_hour were spent: search 1 min 40 s, "
        "final training 32 s and share of common work 8.0 s. The cheapest baseline, head only, takes 2 min 00 s less; "
        "+10.0 points [+5.0, +15.0] of accuracy were gained over it: 12 s, 0.005 for each. "
        "As many trials again (12, 1 min 40 s of trial time) would bring one that is better beyond noise with a chance "
        "of 21%, the next one alone with 3%."
    )


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (a_gain((-0.02, 0.05)), "takes 2 min 00 s less; no clear gain over it"),
        (a_gain((-0.2, -0.05)), "and is better"),
        (a_gain(extra_seconds=-3.0), "takes no less; +10.0 points [+5.0, +15.0] of accuracy were gained over it."),
        (None, "There is no baseline to tell"),
    ],
)
def test_the_finding_prices_only_what_was_surely_gained(gain: Gain | None, words: str) -> None:
    found = investment_finding(an_investment(gain=gain, prospect=None))
    assert words in found and "for each" not in found and "again" not in found


def test_without_gpus_and_prices_neither_is_named() -> None:
    found = investment_finding(an_investment(spent=Spending(seconds=140.0)))
    assert "GPU" not in found and "cost_per_hour" not in found


def test_amounts_of_money_keep_their_size() -> None:
    assert [money(value) for value in (1234.5, 1.0, 0.0, 0.0512, None)] == ["1,234.50", "1.00", "0.00", "0.0512", "–"]  # noqa: RUF001
    assert price(a_gain(extra_seconds=-3.0)) == "none"


def test_models_beside_the_groups_are_named_with_what_they_took(report: Report) -> None:
    beside = {"subset_models": Spending(seconds=30.0, money=0.02), "retraining": Spending(seconds=12.0, money=0.01)}
    found = an_investment(gain=None, prospect=None, beside=beside)
    assert investment_finding(found).endswith(
        " Beside it 42 s of work, 0.03 by cluster.cost_per_hour were spent on models of single subsets 30 s and "
        "models that subsets were moved to 12 s."
    )
    # The line of all groups has all that was spent.
    assert "3 min 02 s of work" in investment_summary(
        report.model_copy(update={"investment": Investment(groups=[found])})
    )


def test_the_summary_adds_groups_up_in_a_line(report: Report) -> None:
    groups = [an_investment(), an_investment("high", gain=a_gain((-0.02, 0.05)))]
    found = investment_summary(report.model_copy(update={"investment": Investment(groups=groups)}))
    assert found == (
        "Investment: 4 min 40 s of work, 0.040 GPU-hours, 0.102 by cluster.cost_per_hour; a clear gain over the "
        "cheapest baseline in 1 of 2 groups. Chance that as many trials again gain anything: 21% (low), 21% (high)."
    )
    assert investment_summary(report) == ""


def a_subset(name: str, **changes: object) -> SubsetInvestment:
    return SubsetInvestment.model_validate({"subset": name, "share": 0.5, "spent": Spending(seconds=70.0), **changes})


def test_the_gain_of_a_model_that_took_the_place_of_the_groups_is_told_beside_the_first_ones() -> None:
    lost = a_gain((-0.25, -0.01), gain=-0.13)
    found = an_investment(subsets=[a_subset("north", gain=a_gain()), a_subset("south", gain=a_gain(), first_gain=lost)])
    assert shipped_finding(found) == (
        "1 subset is served by another model; over the same baseline gained: south +10.0 points [+5.0, +15.0], the "
        "group's first model -13.0."
    )
    assert shipped_finding(found) in investment_finding(found)
    assert not shipped_finding(an_investment(subsets=[a_subset("north", gain=a_gain())]))
