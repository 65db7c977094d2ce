import pytest
from report_examples import a_label_shift, a_report

from orchestrator.records import HeadScores, TaskClasses, TaskScores
from orchestrator.reporting.html import render_html
from orchestrator.reporting.shift_findings import shift_finding, shown_shifts


def test_a_correction_that_helps_is_told_with_its_gain_and_what_calibration_alone_does() -> None:
    text = shift_finding(a_label_shift(["harbour", "mill"]))
    assert text.startswith("Without their labels, by expectation maximisation over calibrated probabilities (Saerens")
    assert "212 validation images, the test images' class frequencies are estimated to differ" in text
    assert "from validation's by 30.0% of the images;" in text
    assert "the true frequencies lie in their intervals." in text
    assert "Correcting for them raises accuracy (+4.0 points [+1.0, +7.0])" in text
    assert "cross-entropy goes from 0.520 to 0.480 by calibration alone and to 0.350 with the correction." in text
    assert "Of 2 subsets correcting raises accuracy in 2 and lowers it in 0." in text
    assert "not to be trusted" not in text


@pytest.mark.parametrize(
    ("interval", "said"),
    [((-0.01, 0.02), "makes no clear difference to accuracy"), ((-0.05, -0.01), "lowers accuracy")],
)
def test_a_correction_that_does_not_help_is_told(interval: tuple[float, float], said: str) -> None:
    shift = a_label_shift([])
    whole = shift.whole.model_copy(update={"accuracy_gain_interval": interval})
    assert said in shift_finding(shift.model_copy(update={"whole": whole}))


def test_frequencies_outside_of_their_intervals_are_named() -> None:
    shift = a_label_shift(["harbour", "mill"])

    def missed(found: object) -> object:
        low = shift.whole.frequencies[0].model_copy(update={"interval": (0.0, 0.1)})
        return found.model_copy(update={"frequencies": [low, *shift.whole.frequencies[1:]]})

    whole, subsets = missed(shift.whole), [shift.subsets[0], missed(shift.subsets[1])]
    text = shift_finding(shift.model_copy(update={"whole": whole, "subsets": subsets}))
    assert "the true frequencies of dog lie outside of their intervals." in text
    assert "In mill true frequencies lie outside" in text and "harbour" not in text


def test_a_single_subset_is_not_told_twice() -> None:
    assert "subset" not in shift_finding(a_label_shift(["harbour"]))


def test_every_task_and_every_head_has_what_correcting_it_does() -> None:
    report = a_report()
    first, shift = report.evaluations[0], a_label_shift(["harbour"])
    assert shown_shifts(first) == []
    task = TaskScores(
        task="form", classes=["round"], predictions="x", num_images=9, confusion_matrix=[], label_shift=shift
    )
    both = first.model_copy(update={"label_shift": shift, "tasks": [task]})
    found = shown_shifts(both)
    assert [shown.title for shown in found] == ["Other class frequencies", "Other class frequencies: form"]
    assert {shown.finding for shown in found} == {shift_finding(shift)} and found[1].shared_validation == 212
    heads = [
        HeadScores(subset=name, classes=["dog"], num_images=9, label_shift=kept)
        for name, kept in (("harbour", shift.subsets[0]), ("mill", shift.subsets[0]), ("late", None))
    ]
    (shown,) = shown_shifts(first.model_copy(update={"heads": heads}))
    assert shown.rows == [shift.subsets[0]] * 2 and shown.shared_validation is None
    assert "by its head alone" in shown.finding and "Of 2 subsets correcting raises accuracy in 2" in shown.finding
    tasks = [TaskClasses(task=name, classes=["x"]) for name in ("species", "form")]
    model = report.models[0].model_copy(update={"tasks": tasks})
    page = render_html(report.model_copy(update={"evaluations": [both], "models": [model]}))
    assert "<h4>Other class frequencies: form</h4>" in page and page.count("Estimated and true frequencies") == 2
