import pytest
from report_examples import a_configuration

from orchestrator.records import (
    Arm,
    ArmGain,
    Move,
    RegroupedModel,
    Regrouping,
    Report,
    SplitComparison,
    SubsetGain,
    SubsetTransfer,
    Transfer,
    TransferVerdict,
)
from orchestrator.reporting.html import render_html
from orchestrator.reporting.transfer_findings import arm_titles, regrouping_finding, transfer_finding, transfer_rows


def a_gain(name: str, gain: float) -> ArmGain:
    return ArmGain(name=name, accuracy=0.8 - gain, gain=gain, gain_interval=(gain - 0.05, gain + 0.05))


def a_subset(name: str, verdict: TransferVerdict | None, *gains: ArmGain, **changes: object) -> SubsetTransfer:
    compared = SplitComparison(num_images=120, num_units=60, accuracy=0.8, others=list(gains)) if gains else None
    found = SubsetTransfer(
        subset=name,
        group="low",
        verdict=verdict,
        test=compared,
        validation=compared,
        reason="verdicts are only reported",
        model="groups/low/model",
    )
    return found.model_copy(update=changes)


HURT = a_subset(
    "quarry<2>",
    "hurts",
    a_gain("from_scratch", 0.1),
    a_gain("subset_only", -0.2),
    action="fallback",
    taken="subset_only",
    reason="on validation images it is more accurate by +19.0 points [+9.0, +29.0]",
    model="groups/low/arms/subset_only/quarry_2_-1a2b3c4d/model",
    gain=SubsetGain(
        subset="quarry<2>",
        validation_gain=0.19,
        validation_interval=(0.1, 0.28),
        test_gain=0.2,
        test_interval=(0.15, 0.25),
    ),
)
TRANSFER = Transfer(
    mode="fallback",
    arms=[
        Arm(
            group="low",
            subset=None,
            name="from_scratch",
            hyperparameters=a_configuration(freeze_depth=0, epochs=3),
            epoch_cost=3.8,
            seconds=12.0,
        ),
        Arm(
            group="low",
            subset="mill",
            name="subset_only",
            hyperparameters=a_configuration(),
            seconds=0.0,
            error="there must be validation images",
        ),
    ],
    subsets=[
        a_subset("harbour", "helps", a_gain("from_scratch", 0.2), a_gain("subset_only", 0.1)),
        HURT,
        a_subset("orchard", "no_difference", a_gain("from_scratch", 0.0), a_gain("pooled", -0.1)),
        a_subset("mill", None),
    ],
)
REGROUPING = Regrouping(
    moves=[Move(subset="mill", origin="low", destination="high", is_new=False, place=a_gain("high", -0.3))],
    left_out=[],
    models=[
        RegroupedModel(
            group="high", subsets=["mill"], recipe_of="high", predicted_s=30, seconds=33, model="regrouped/high/model"
        )
    ],
    budget_left_s=200.0,
    gains=[],
    is_kept=True,
    reason="1 subsets moved, 1 groups trained again",
)


@pytest.fixture(scope="module")
def plotless(report: Report) -> Report:
    """Give a report without groups: its plots take far longer than its words."""
    groups = report.groups.model_copy(update={"groups": []})
    return report.model_copy(update={"groups": groups, "evaluations": [], "comparisons": []})


def test_the_finding_counts_the_verdicts_and_names_who_is_hurt() -> None:
    assert transfer_finding(TRANSFER) == (
        "Transfer helps 1 of 4 subsets, makes no difference beyond chance to 1 and hurts 1 (quarry<2>). "
        "1 subset could not be compared. The pooled model of all groups is better for orchard."
    )


def test_those_who_are_hurt_come_first_with_what_was_done() -> None:
    rows = transfer_rows(TRANSFER)
    assert [row.found.subset for row in rows] == ["quarry<2>", "orchard", "harbour", "mill"]
    assert rows[0].done == (
        "fell back to subset only: on validation images it is more accurate by +19.0 points [+9.0, +29.0]; "
        "+20.0 points [+15.0, +25.0] on test images"
    )
    assert [gain.gain if gain else None for gain in rows[0].gains] == [0.1, None, -0.2, None]


def test_a_model_without_the_source_has_a_column_where_one_was_trained() -> None:
    assert "target_only" not in arm_titles(TRANSFER)
    arm = TRANSFER.arms[0].model_copy(update={"name": "target_only"})
    transfer = TRANSFER.model_copy(update={"arms": [*TRANSFER.arms, arm]})
    assert list(arm_titles(transfer)) == ["from_scratch", "head_only", "target_only", "subset_only", "pooled"]
    assert all(len(row.gains) == 5 for row in transfer_rows(transfer))


def test_a_regrouping_says_what_moved_and_what_it_took() -> None:
    assert regrouping_finding(REGROUPING) == (
        "Regrouping: 1 subsets moved, 1 groups trained again. Moved: mill from low to high. "
        "Training again took 33 s, predicted 30 s. The search had left 3 min 20 s of its budget."
    )


def test_the_report_shows_verdicts_intervals_and_models(plotless: Report) -> None:
    regrouped = TRANSFER.model_copy(update={"regrouping": REGROUPING})
    page = render_html(plotless.model_copy(update={"transfer": regrouped}))
    assert "quarry&lt;2&gt;" in page and "quarry<2>" not in page
    for shown in (
        "groups/low/arms/subset_only/quarry_2_-1a2b3c4d/model",
        "-20.0</span>",
        "[-25.0, -15.0]",
        "3.80 of the group",
        "there must be validation images",
        "mill from low to high",
    ):
        assert shown in page, shown


def test_a_report_without_verdicts_says_how_to_get_them(plotless: Report) -> None:
    assert "evaluate.on_negative_transfer: report" in render_html(plotless)
