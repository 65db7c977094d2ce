"""What measures of features leave open is said, and nothing where they leave nothing open."""

from __future__ import annotations

from typing import Any

from orchestrator.records import Report, SubsetProfile
from orchestrator.reporting.feature_findings import feature_notes


def subsets(report: Report, **changes: Any) -> list[SubsetProfile]:
    first, *others = report.profile.subsets
    return [first.model_copy(update=changes), *others]


def test_exact_scores_of_features_that_differ_need_no_note(report: Report) -> None:
    assert feature_notes(report.profile.subsets) == feature_notes([]) == []
    labels_only = {"variance_between": None, "variance_within": None, "feature_diversity": None}
    assert feature_notes(subsets(report, **labels_only)) == []


def test_the_widest_bounds_of_a_sketch_are_stated(report: Report) -> None:
    wide, narrow = (20.0, 24.5), (30.0, 31.0)
    first, second, *others = report.profile.subsets
    sketched = [
        first.model_copy(update={"raw_feature_diversity_bounds": narrow}),
        second.model_copy(update={"raw_feature_diversity_bounds": wide}),
        *others,
    ]
    (said,) = feature_notes(sketched)
    assert "Features of 2 subsets were summed up in a sketch" in said
    assert f"the widest for {second.subset}: 20.0 to 24.5" in said


def test_features_that_are_all_the_same_are_named_with_what_follows(report: Report) -> None:
    same = {"variance_between": 0.0, "variance_within": 3e-16}
    (said,) = feature_notes(subsets(report, **same))
    assert report.profile.subsets[0].subset in said and "H-score and Fisher ratio are 0" in said
    assert feature_notes(subsets(report, **same, num_images=1)) == []
