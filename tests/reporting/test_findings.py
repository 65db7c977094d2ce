import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import a_report, a_search, an_evaluation

from orchestrator.records import Catalogue, CopyCount, DepthCost, Recipe, Report, SearchCosts
from orchestrator.reporting.findings import (
    calibration_finding,
    copies_finding,
    frequent_mistakes,
    group_finding,
    grouping_finding,
    headline,
    pooled_finding,
    saving_finding,
    separation_finding,
    verdict,
)

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


def test_calibration_is_stated_with_what_a_temperature_makes_of_it() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=())
    found = calibration_finding(evaluation)
    assert "6.2% apart on average [3.8, 8.7]" in found and "too sure" in found
    assert "divided by 1.63 bring the test images to 2.1%" in found and "from 0.370 to 0.310" in found
    assert evaluation.calibration is not None
    timid = evaluation.calibration.model_copy(update={"temperature": 0.8})
    assert "not sure enough" in calibration_finding(evaluation.model_copy(update={"calibration": timid}))
    assert "No temperature was fitted" in calibration_finding(evaluation.model_copy(update={"calibration": None}))
    assert calibration_finding(evaluation.model_copy(update={"expected_calibration_error": None})) == ""


def test_separation_names_the_classes_that_lie_closest() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=())
    assert "0.213 within classes and 0.351 between" in separation_finding(evaluation)
    assert "those of dog and cat least (0.50)" in separation_finding(evaluation)
    assert separation_finding(evaluation.model_copy(update={"separation": None})) == ""


def test_mistakes_are_listed_from_the_most_frequent() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=()).model_copy(
        update={"confusion_matrix": [[5, 2], [3, 7]]}
    )
    assert frequent_mistakes(evaluation) == ["cat taken for dog (3 of 10)", "dog taken for cat (2 of 7)"]
    assert frequent_mistakes(evaluation, most=1) == ["cat taken for dog (3 of 10)"]


def a_depth(depth: int, *, kept: bool, predicted: float, uncached: float, measured: float | None) -> DepthCost:
    return DepthCost(
        depth=depth,
        source="activations" if kept else "pixels",
        predicted_epoch_s=predicted,
        predicted_uncached_epoch_s=uncached,
        measured_epoch_s=measured,
        num_epochs=0.0 if measured is None else 10.0,
    )


def test_what_keeping_saved_is_compared_at_the_pace_of_the_search() -> None:
    depths = [
        a_depth(0, kept=False, predicted=2.0, uncached=2.0, measured=3.0),
        a_depth(1, kept=True, predicted=1.0, uncached=2.0, measured=1.5),
        a_depth(2, kept=True, predicted=0.5, uncached=1.0, measured=0.1),
    ]
    text = saving_finding(SearchCosts(depths=depths, build_seconds=4.0))
    assert text == (
        "Activations were kept for freeze depth 1 and 2, built in 4.0 s. Their trials took 16 s (15 s predicted); "
        "without, at the pace of this search, 45 s (30 s predicted)."
    )


def test_kept_activations_that_no_trial_used_save_nothing() -> None:
    depths = [a_depth(0, kept=False, predicted=2.0, uncached=2.0, measured=3.0)]
    depths.append(a_depth(1, kept=True, predicted=1.0, uncached=2.0, measured=None))
    assert "no trial used them" in saving_finding(SearchCosts(depths=depths, build_seconds=4.0))


def test_a_search_that_kept_nothing_says_so() -> None:
    depths = [a_depth(0, kept=False, predicted=2.0, uncached=2.0, measured=3.0)]
    assert saving_finding(SearchCosts(depths=depths)).startswith("No activations were kept")


def test_the_groups_sentence_names_the_subsets_whose_place_is_unsure(report: Report) -> None:
    said = grouping_finding(report.groups)
    assert said.startswith("The subsets differ by more than chance. 1 subset would come to the same group less than")
    assert said.endswith("(72%).")


def test_subsets_that_chance_parts_are_said_to_be_one_group(report: Report) -> None:
    said = grouping_finding(report.groups.model_copy(update={"difference_p_value": 0.43}))
    assert "no more than chance would have it (p = 0.43)" in said and "one group would be as honest" in said


def test_nothing_is_said_of_groups_whose_measures_have_no_intervals(report: Report) -> None:
    assert grouping_finding(report.groups.model_copy(update={"difference_p_value": None})) == ""


EXACT = CopyCount(copies=12, copies_within_subsets=10, pictures_across_splits=1, pictures_of_several_labels=0)


def a_catalogue(**changes: object) -> Catalogue:
    return a_report().catalogue.model_copy(update=changes)


def test_a_picture_in_several_splits_is_warned_of_with_its_remedy() -> None:
    text = copies_finding(a_catalogue(exact_copies=EXACT))
    assert "12 exact, 10 of them within a subset, 1 picture in more than one split." in text
    assert "Warning" in text and "data.deduplicate: exact" in text


def test_copies_within_one_split_are_counted_without_a_warning() -> None:
    text = copies_finding(a_catalogue(exact_copies=EXACT.model_copy(update={"pictures_across_splits": 0})))
    assert "12 exact" in text and "Warning" not in text


def test_after_deduplication_the_sentence_says_what_was_left_out() -> None:
    near = EXACT.model_copy(update={"copies": 40, "pictures_of_several_labels": 2})
    done = a_catalogue(exact_copies=EXACT, near_copies=near, deduplicate="near", num_copies_left_out=38)
    text = copies_finding(done)
    assert "40 near, the exact ones among them" in text and "2 pictures of several labels" in text
    assert "38 images left out as copies" in text and "Warning" not in text


def test_without_copies_nothing_is_said() -> None:
    none = CopyCount(copies=0, copies_within_subsets=0, pictures_across_splits=0, pictures_of_several_labels=0)
    assert copies_finding(a_catalogue(exact_copies=none)) == copies_finding(a_catalogue()) == ""
