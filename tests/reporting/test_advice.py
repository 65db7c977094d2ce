from report_examples import a_report

from orchestrator.records import Report
from orchestrator.reporting.advice import advise


def test_every_sentence_is_of_a_group_and_names_its_numbers(report: Report) -> None:
    advice = advise(report)
    groups = [group.name for group in report.groups.groups]
    assert {found.group for found in advice} == set(groups)
    places = [groups.index(found.group) for found in advice]
    assert places == sorted(places)
    assert all(any(letter.isdigit() for letter in found.sentence) for found in advice)
    assert len({found.sentence for found in advice}) == len(advice)


def test_the_rules_speak_on_the_whole_report(report: Report) -> None:
    kinds = {found.kind for found in advise(report)}
    assert {"varied_samples", "more_test_images"} <= kinds


def test_a_report_of_hundreds_of_subsets_gets_advice_that_can_be_read() -> None:
    large = a_report(subsets_per_group=200)
    classes = {"dog": 30, "horse": 30, "giraffe": 40}
    lacking = [
        profile.model_copy(update={"label_counts": {"dog": 50, "horse": 50} if place % 2 else classes})
        for place, profile in enumerate(large.profile.subsets)
    ]
    changed = large.model_copy(update={"profile": large.profile.model_copy(update={"subsets": lacking})})
    found = [advice for advice in advise(changed) if advice.kind == "missing_classes"]
    assert len(found) == 3 * 6
    assert found[5].sentence.startswith("95 subsets more")


def test_an_empty_report_advises_nothing(report: Report) -> None:
    empty = {"models": [], "evaluations": [], "searches": [], "recipes": []}
    assert advise(report.model_copy(update=empty)) == []
