from __future__ import annotations

from report_examples import a_report

from orchestrator.records import Evaluation, LabelScores, LabelSetScores, MultiLabelScores
from orchestrator.reporting.html import render_html
from orchestrator.reporting.multi_label_findings import multi_label_finding
from orchestrator.reporting.tables import evaluation_table

SETS = LabelSetScores(
    subset_accuracy=0.61,
    subset_accuracy_interval=(0.55, 0.66),
    hamming_loss=0.071,
    hamming_loss_interval=(0.06, 0.08),
    micro_f1=0.832,
    micro_f1_interval=(0.8, 0.86),
    macro_f1=None,
    macro_f1_interval=None,
)
FOUND = MultiLabelScores(
    mean_average_precision=0.914,
    mean_average_precision_interval=(0.89, 0.93),
    at_half=SETS,
    at_fitted=SETS.model_copy(update={"hamming_loss": 0.065}),
    by_label=[LabelScores(label="<sun>", num_images=40, average_precision=0.97, threshold=0.312, f1=0.9)],
)


def multi_label(evaluation: Evaluation, found: MultiLabelScores | None = FOUND) -> Evaluation:
    blank = {"balanced_accuracy": None, "calibration": None, "separation": None, "reliability": []}
    scores = evaluation.subsets[0].model_copy(update={"confusion_matrix": [], "multi_label": found})
    compared = {"mean_average_precision": 0.877, "mean_average_precision_gain": 0.037}
    baselines = [baseline.model_copy(update=compared) for baseline in evaluation.baselines]
    return evaluation.model_copy(
        update={
            **blank,
            "baselines": baselines,
            "confusion_matrix": [],
            "expected_calibration_error": None,
            "multi_label": found,
            "subsets": [scores],
        }
    )


def test_the_finding_says_what_accuracy_means_and_how_precise_labels_are() -> None:
    evaluation = multi_label(a_report(subsets_per_group=2, num_trials=4).evaluations[0])
    text = multi_label_finding(evaluation)
    assert text.startswith("The mean average precision over labels is 0.914 [0.890, 0.930]. An image counts as right")
    bare = FOUND.model_copy(update={"mean_average_precision": None, "mean_average_precision_interval": None})
    assert multi_label_finding(multi_label(evaluation, bare)).startswith("No test image has a label.")
    unbounded = FOUND.model_copy(update={"mean_average_precision_interval": None})
    assert "is 0.914. An image" in multi_label_finding(multi_label(evaluation, unbounded))


def test_what_bins_cost_is_said_of_the_mean_and_of_gains() -> None:
    counted = FOUND.model_copy(update={"mean_average_precision_error": 0.004})
    evaluation = multi_label(a_report(subsets_per_group=2, num_trials=4).evaluations[0], counted)
    text = "is 0.914 [0.890, 0.930]. Scores were counted in bins: it is off by at most 4.0e-03"
    assert f"{text}. An image" in multi_label_finding(evaluation)
    errors = {"mean_average_precision_error": 0.003}
    baselines = [baseline.model_copy(update=errors) for baseline in evaluation.baselines]
    compared = evaluation.model_copy(update={"baselines": baselines})
    assert f"{text}, gains in it by at most 7.0e-03. An image" in multi_label_finding(compared)
    exact = FOUND.model_copy(update={"mean_average_precision_error": 0.0})
    assert "bins" not in multi_label_finding(multi_label(evaluation, exact))


def test_nothing_is_said_of_images_of_one_label_each() -> None:
    report = a_report(subsets_per_group=2, num_trials=4)
    assert multi_label_finding(report.evaluations[0]) == ""
    assert "Any number of labels" not in render_html(report)


def test_the_report_has_the_scores_of_label_sets_and_no_confusion() -> None:
    report = a_report(subsets_per_group=2, num_trials=4)
    evaluations = [multi_label(evaluation) for evaluation in report.evaluations]
    changed = report.model_copy(update={"evaluations": evaluations})
    html = render_html(changed)
    assert "Any number of labels" in html and "0.071" in html and "0.065" in html and "0.312" in html
    assert "0.877" in html and "0.037" in html
    assert "&lt;sun&gt;" in html and "Confusion matrix" not in html and "taken for" not in html
    assert evaluation_table(evaluations).row_count > 0
