from __future__ import annotations

from report_examples import a_configuration
from rich.console import Console

from orchestrator.records import Assignment, Assignments
from orchestrator.reporting.findings import assignment_notes
from orchestrator.reporting.tables import assignments_table


def an_assignment(subset: str, **changes: object) -> Assignment:
    fields = {
        "group": "medium",
        "num_images": 1234,
        "values": {"label_entropy": 1.5, "feature_diversity": 12.25},
        "certainty": 0.985,
        "is_small": False,
        "is_comparable": True,
    }
    return Assignment.model_validate({"subset": subset, **fields, **changes})


def found(*assignments: Assignment, **changes: object) -> Assignments:
    fields = {"uri": "photos", "assignments": assignments, "unmeasured": [], "num_quarantined": 0}
    return Assignments.model_validate({**fields, **changes})


def shown(assignments: Assignments) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(assignments_table(assignments))
    return capture.get()


def test_the_table_shows_the_group_its_recipe_and_its_model_within_a_hundred_columns() -> None:
    text = shown(found(an_assignment("site-25", recipe=a_configuration(), model="groups/medium/model")))
    for part in ("site-25", "1,234", "1.50", "12.25", "medium", "98.5%", "depth 4", "rate 1e-3", "groups/medium/model"):
        assert part in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def test_what_is_not_there_yet_is_a_dash() -> None:
    row = shown(found(an_assignment("site-25", certainty=None))).splitlines()[-2]
    assert row.split()[-3:] == ["–"] * 3  # noqa: RUF001 - the dash that stands for what is absent


def test_data_without_a_measured_subset_has_an_empty_table_and_a_note() -> None:
    nothing = found(unmeasured=["site-26"], num_quarantined=3)
    assert "Subset" in shown(nothing)
    assert assignment_notes(nothing) == [
        "Without a usable image in the measured split: site-26.",
        "3 rows could not be used.",
    ]


def test_a_sure_assignment_of_known_classes_needs_no_note() -> None:
    assert assignment_notes(found(an_assignment("site-25"))) == []


def test_every_doubt_is_told_with_its_subset() -> None:
    doubtful = an_assignment(
        "site-25", num_images=7, certainty=0.6, is_small=True, is_comparable=False, unknown_classes=["owl", "yak"]
    )
    assert assignment_notes(found(doubtful, an_assignment("site-26"))) == [
        "site-25: 7 images are few to measure diversity by.",
        "site-25: feature diversity was compared at more than 7 images; with so few it scores too low.",
        "site-25: measured on other images it could well come to another group.",
        "site-25: 2 classes unknown to the model of medium: owl, yak.",
    ]
