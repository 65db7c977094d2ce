from report_examples import a_report

from orchestrator.records import Balance
from orchestrator.reporting.balance_findings import balance_finding
from orchestrator.reporting.html import render_html

BALANCE = Balance(
    num_classes=7,
    num_repeated=3,
    most_repeated="<owl>",
    most_repeated_images=12,
    times_shown=4.25,
    num_images=1200,
    num_left_out=410,
)


def test_the_finding_names_the_class_that_is_repeated_most() -> None:
    assert balance_finding(BALANCE) == (
        "Balanced epochs repeat images of 3 of 7 classes, most often those of <owl> (12 images, each 4.2 times an "
        "epoch); each leaves out 410 of 1,200 training images."
    )


def test_classes_of_one_size_repeat_nothing() -> None:
    even = BALANCE.model_copy(update={"num_repeated": 0, "times_shown": 1.0, "num_left_out": 0})
    assert balance_finding(even) == "Balanced epochs repeat no image; each leaves out 0 of 1,200 training images."


def test_the_report_says_beside_the_model_what_was_repeated() -> None:
    report = a_report(subsets_per_group=2, num_trials=4)
    models = [report.models[0].model_copy(update={"balance": BALANCE}), *report.models[1:]]
    page = render_html(report.model_copy(update={"models": models}))
    assert len(report.models) > 1 and page.count("Balanced epochs") == 1
    assert "those of &lt;owl&gt; (12 images" in page
