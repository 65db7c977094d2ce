"""The report says what a model was trained together with, what that gained, and how well outliers are told."""

from __future__ import annotations

import pytest
from report_examples import a_configuration

from orchestrator.records import Baseline, Evaluation, ModelCard, OutlierScores, Report, SourceUse
from orchestrator.reporting.html import render_html
from orchestrator.reporting.source_findings import joint_findings

TARGET_ONLY = Baseline(
    name="target_only",
    hyperparameters=a_configuration(),
    accuracy=0.7,
    accuracy_interval=(0.66, 0.74),
    seconds=9.0,
    accuracy_gain=0.08,
    accuracy_gain_interval=(0.05, 0.11),
)


def use(**changes: object) -> SourceUse:
    fields = {
        "uri": "/data/source",
        "num_images": 900,
        "shared_classes": ["dog", "horse"],
        "num_other_classes": 3,
        "batch_share": 0.5,
        "weight": 1.0,
        "penalty": "coral",
        "penalty_weight": 10.0,
        "as_negatives": "none",
    }
    return SourceUse.model_validate({**fields, **changes})


def with_source(report: Report, source: SourceUse, **evaluated: object) -> tuple[ModelCard, Evaluation]:
    model = report.models[0].model_copy(update={"source": source})
    evaluation = report.evaluations[0]
    changes = {"baselines": [*evaluation.baselines, TARGET_ONLY], **evaluated}
    return model, evaluation.model_copy(update=changes)


def test_a_model_without_a_source_has_nothing_to_say(report: Report) -> None:
    assert joint_findings(report.models[0], report.evaluations[0]) == []


def test_what_was_trained_together_and_what_it_gained(report: Report) -> None:
    used, gained = joint_findings(*with_source(report, use()))
    assert (
        "900 images of /data/source: 50.0% of every batch, their loss by 1.00, CORAL of the features by 10.00" in used
    )
    assert "Shared classes: dog, horse; 3 other classes the model leaves out." in used
    assert gained.startswith("The source helps: +8.0 points [+5.0, +11.0]")


def test_prototypes_alone_know_no_batches(report: Report) -> None:
    used, *_ = joint_findings(*with_source(report, use(batch_share=None, penalty="none", weight=0.3)))
    assert "900 images of /data/source: prototypes are means over target and source, weighed by 1 and 0.30." in used


@pytest.mark.parametrize(
    ("negatives", "labels", "score"),
    [
        ("reject", "All of them are one class more", "the probability of the class that rejects"),
        ("outlier_exposure", "They are outliers", "one minus the largest probability"),
    ],
)
def test_how_outliers_are_told(report: Report, negatives: str, labels: str, score: str) -> None:
    outliers = OutlierScores.model_validate(
        {"negatives": negatives, "auc": 0.987, "auc_interval": (0.97, 0.995), "num_target": 100, "num_source": 80}
    )
    source = use(as_negatives=negatives, penalty="none", shared_classes=[], num_other_classes=0)
    used, _, told = joint_findings(*with_source(report, source, outliers=outliers))
    assert labels in used and score in told
    assert "80 source images" in told and "0.987 [0.970, 0.995]" in told


def test_the_page_shows_it_in_the_section_of_the_group_alone(report: Report) -> None:
    assert "Source and target together" not in render_html(report)
    model, evaluation = with_source(report, use())
    changes = {"models": [model, *report.models[1:]], "evaluations": [evaluation, *report.evaluations[1:]]}
    page = render_html(report.model_copy(update=changes))
    assert page.count("<h3>Source and target together</h3>") == 1
    assert "target only" in page
