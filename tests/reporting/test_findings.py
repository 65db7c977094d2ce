import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import a_search, an_evaluation

from orchestrator.records import Recipe, Report
from orchestrator.reporting.findings import frequent_mistakes, group_finding, headline, pooled_finding, verdict

GAIN, LOSS, UNCLEAR = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), (0.02, -0.01, 0.05)


def a_recipe() -> Recipe:
    best = a_search("low").trials[1]
    return Recipe(
        group="low",
        trial_id=best.trial_id,
        metric="val_accuracy",
        value=best.value or 0,
        hyperparameters=best.hyperparameters,
    )


@given(st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(lambda ends: (min(ends), max(ends))))
def test_a_verdict_is_clear_exactly_when_the_interval_leaves_out_zero(interval: tuple[float, float]) -> None:
    low, high = interval
    assert (verdict(interval) == "unclear") == (low <= 0 <= high)
    assert (verdict(interval) == "better") == (low > 0)


def test_a_group_sentence_sorts_its_baselines_by_verdict() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=(GAIN, UNCLEAR, LOSS))
    text = group_finding(a_search("low"), a_recipe(), evaluation)
    assert "it beats the fixed rule (+10.0 points [+5.0, +15.0])" in text
    assert "no clear difference from training the head alone (+2.0 points [-1.0, +5.0])" in text
    assert "falls behind training from scratch (-10.0 points [-15.0, -5.0])" in text


def test_a_failed_baseline_is_named_with_its_error() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=(GAIN,))
    unknown = {"accuracy": None, "accuracy_gain": None, "accuracy_gain_interval": None, "error": "out of memory"}
    broken = evaluation.model_copy(update={"baselines": [evaluation.baselines[0].model_copy(update=unknown)]})
    text = group_finding(a_search("low"), a_recipe(), broken)
    assert "could not be compared with the fixed rule (out of memory)" in text


def test_a_group_without_a_recipe_says_why() -> None:
    search = a_search("low", num_trials=3, failed=(0, 1, 2))
    assert group_finding(search, None, None) == "No recipe was found: none of 3 trials completed."


def test_a_group_without_test_images_claims_no_accuracy() -> None:
    text = group_finding(a_search("low"), a_recipe(), None)
    assert "no test results" in text and "%" not in text


def test_the_headline_counts_groups_by_verdict(report: Report) -> None:
    text = headline(report)
    assert text.startswith(
        "The recipes beat the fixed rule on test accuracy in 2 of 3 groups; no clear difference in 1."
    )
    assert "Over all 1,284 test images they beat the fixed rule (+12.7 points [+10.0, +15.1])." in text


def test_the_headline_counts_groups_that_were_not_compared(report: Report) -> None:
    partial = report.model_copy(update={"evaluations": report.evaluations[:1], "comparisons": []})
    assert headline(partial) == (
        "The recipes beat the fixed rule on test accuracy in 1 of 3 groups; not compared in 2."
    )


def test_the_headline_of_an_untested_experiment_claims_nothing(report: Report) -> None:
    untested = report.model_copy(update={"evaluations": [], "comparisons": []})
    assert headline(untested).startswith("There is no test result yet")


@pytest.mark.parametrize(
    ("interval", "words"),
    [((0.1, 0.2), "they beat"), ((-0.2, -0.1), "they fall behind"), ((-0.1, 0.1), "no clear difference")],
)
def test_a_pooled_comparison_is_judged_by_its_interval(
    report: Report, interval: tuple[float, float], words: str
) -> None:
    found = report.comparisons[0].model_copy(update={"accuracy_gain_interval": interval})
    assert words in pooled_finding(found)


def test_mistakes_are_listed_from_the_most_frequent() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=()).model_copy(
        update={"confusion_matrix": [[5, 2], [3, 7]]}
    )
    assert frequent_mistakes(evaluation) == ["cat taken for dog (3 of 10)", "dog taken for cat (2 of 7)"]
    assert frequent_mistakes(evaluation, most=1) == ["cat taken for dog (3 of 10)"]
