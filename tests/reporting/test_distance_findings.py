"""The report names how groups and subsets relate to every source that the run knows, and by which rule."""

from __future__ import annotations

import pytest
from report_examples import ANOTHER, a_source

from orchestrator.records import Distances, GroupDistance, GroupDistances, Report
from orchestrator.reporting.distance_findings import source_finding, source_sections


def test_both_kinds_of_sources_have_a_section_that_names_them(report: Report) -> None:
    sources = [a_source("pretraining"), a_source("joint training")]
    near = GroupDistance(group="low", **(ANOTHER | {"relation": "same domain, another task"}))
    both = report.model_copy(
        update={
            "distances": Distances(num_images=60, subsets=[], between=[], sources=sources),
            "group_distances": GroupDistances(sources=[[], [near]]),
        }
    )
    first, second = source_sections(both)
    assert first.title == "the source task of the weights"
    assert second.title == "the source that groups are trained together with"
    assert [(kind, name) for kind, name, _ in second.rows] == [
        ("group", "low"), ("subset", "harbour"), ("subset", "quarry"),
    ]  # fmt: skip
    assert "low: same domain, another task." in second.finding and "low" not in first.finding
    for section in (first, second):
        assert "another domain, another task (2 subsets)" in section.finding
        assert "s3://bucket/source" in section.finding and "keep within 0.120" in section.finding


def test_a_source_without_a_task_has_none_to_compare() -> None:
    source = a_source("joint training").model_copy(update={"classes": []})
    assert "no task to compare" in source_finding(source, [])
    assert "at least half of the classes" not in source_finding(source, [])


@pytest.mark.parametrize("distances", [None, Distances(num_images=0, subsets=[], between=[])])
def test_without_a_source_there_is_nothing_to_say(report: Report, distances: Distances | None) -> None:
    assert source_sections(report.model_copy(update={"distances": distances, "group_distances": None})) == []
    bare = a_source("pretraining").model_copy(update={"subsets": []})
    of_none = Distances(num_images=60, subsets=[], between=[], sources=[bare])
    assert source_sections(report.model_copy(update={"distances": of_none, "group_distances": None})) == []
