from report_examples import a_report

from orchestrator.records import OutlierScores, Report, Scores, SourceUse, SubsetEvaluation, SubsetResult
from orchestrator.reporting.html import render_html
from orchestrator.reporting.subset_findings import subset_models_finding, subset_source_finding

SOURCE = SourceUse(
    uri="/data/source",
    num_images=900,
    shared_classes=[],
    num_other_classes=0,
    batch_share=0.5,
    weight=1.0,
    penalty="none",
    penalty_weight=1.0,
    as_negatives="reject",
)


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


def told(auc: float) -> OutlierScores:
    return OutlierScores(negatives="reject", auc=auc, auc_interval=(auc - 0.03, 1.0), num_target=40, num_source=300)


def a_report_with_a_source() -> Report:
    report, own = a_report(), an_evaluation()
    first, second, shared = own.subsets
    first, second = (
        found.model_copy(update={"outliers": told(auc)}) for found, auc in ((first, 0.91), (second, 0.955))
    )
    model = report.models[0].model_copy(update={"source": SOURCE})
    evaluation = report.evaluations[0].model_copy(update={"outliers": told(0.97)})
    return report.model_copy(
        update={
            "models": [model, *report.models[1:]],
            "evaluations": [evaluation, *report.evaluations[1:]],
            "subset_evaluations": [own.model_copy(update={"subsets": [first, second, shared]})],
        }
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
    assert "Outliers told (AUC)" not in page and 'colspan="7" class="wide">served' in page


def test_subsets_models_beside_a_source_say_so_and_what_they_tell_apart() -> None:
    report = a_report_with_a_source()
    model, evaluation, (own,) = report.models[0], report.evaluations[0], report.subset_evaluations
    assert subset_source_finding(model, evaluation, own) == (
        "Each of them was trained together with the source, as the group's model was. Source images that were not "
        "trained on are told from a subset's own test images with an area under the ROC curve of 0.910 to 0.955; for "
        "the group's model and its test images it is 0.970."
    )
    labelled = own.model_copy(update={"subsets": [an_evaluation().subsets[0]]})
    assert subset_source_finding(model, None, labelled) == (
        "It was trained together with the source, as the group's model was."
    )


def test_without_a_source_or_models_of_their_own_nothing_is_said_of_one() -> None:
    report = a_report_with_a_source()
    (own,) = report.subset_evaluations
    assert subset_source_finding(a_report().models[0], None, own) == ""
    shared = own.model_copy(update={"subsets": own.subsets[2:]})
    assert subset_source_finding(report.models[0], None, shared) == ""


def test_the_report_has_a_column_for_outliers_where_there_are_scores() -> None:
    page = render_html(a_report_with_a_source())
    assert "Outliers told (AUC)" in page and "0.955 <span" in page and 'colspan="8"' in page
