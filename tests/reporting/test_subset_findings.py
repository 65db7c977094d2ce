from report_examples import a_report

from orchestrator.records import Scores, SubsetEvaluation, SubsetResult
from orchestrator.reporting.html import render_html
from orchestrator.reporting.subset_findings import subset_models_finding


def a_result(subset: str, gain: float, interval: tuple[float, float]) -> SubsetResult:
    scores = Scores(num_images=40, accuracy=0.875, accuracy_interval=(0.8, 0.95), confusion_matrix=[[40]])
    return SubsetResult(
        subset=subset,
        model=f"groups/low/subsets/{subset}/model",
        classes=["dog"],
        scores=scores,
        accuracy_gain=gain,
        accuracy_gain_interval=interval,
    )


def an_evaluation() -> SubsetEvaluation:
    return SubsetEvaluation(
        group="low",
        subsets=[
            a_result("harbour", 0.1, (0.05, 0.15)),
            a_result("quarry", -0.02, (-0.06, 0.01)),
            SubsetResult(subset="<mill>", model=None, reason="it has no validation images"),
        ],
        accuracy=0.9,
        accuracy_gain=0.021,
        accuracy_gain_interval=(-0.01, 0.04),
    )


def test_the_finding_counts_verdicts_and_gives_the_gain_over_all_images() -> None:
    assert subset_models_finding(an_evaluation()) == (
        "2 of 3 subsets have models of their own: in 1 it is better than the group's and in 1 it shows no clear "
        "difference. Over all test images, each by what serves its subset, accuracy is 90.0%, +2.1 points from the "
        "group's model alone [-1.0, +4.0]."
    )


def test_a_group_whose_model_serves_all_says_so() -> None:
    shared = an_evaluation().model_copy(update={"subsets": an_evaluation().subsets[2:]})
    assert subset_models_finding(shared) == "None of 1 subset has a model of its own: the group's serves all."


def test_the_report_shows_every_subset_beside_its_reason() -> None:
    page = render_html(a_report().model_copy(update={"subset_evaluations": [an_evaluation()]}))
    assert page.count("Models of single subsets") == 1
    assert "served by the group's model: it has no validation images" in page
    assert "&lt;mill&gt;" in page and "<mill>" not in page
