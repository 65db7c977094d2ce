"""Each rule of data speaks on a made case and is silent on its opposite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_examples import a_report
from scipy.stats import binomtest

from orchestrator.records import Advice, ClassNeighbour, Report
from orchestrator.reporting.data_advice import (
    highest_share,
    missing_attributes,
    missing_classes,
    untold_subsets,
    weak_classes,
    weak_subsets,
)
from orchestrator.reporting.group_records import GroupRecords

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
EVEN = dict.fromkeys(CLASSES, 20)
FIRST, SECOND = "low-harbour-00", "low-quarry-01"


def with_profiles(report: Report, changes: dict[str, dict[str, Any]], **everyone: Any) -> Report:
    """Give every subset's profile some fields, and named ones others."""
    subsets = [
        profile.model_copy(update={**everyone, **changes.get(profile.subset, {})}) for profile in report.profile.subsets
    ]
    return report.model_copy(update={"profile": report.profile.model_copy(update={"subsets": subsets})})


def with_labels(**changes: dict[str, int]) -> Report:
    named = {name.replace("_", "-"): {"label_counts": counts} for name, counts in changes.items()}
    return with_profiles(a_report(), named, label_counts=EVEN)


def kinds(advice: list[Advice]) -> list[tuple[str, str, str | None]]:
    return [(found.kind, found.group, found.subset) for found in advice]


# Classes and attributes.


def test_a_class_that_the_others_have_and_a_subset_has_not_is_named_with_its_numbers() -> None:
    lacking = EVEN | {"giraffe": 0, "horse": 2}
    (found,) = missing_classes(with_labels(low_harbour_00={k: v for k, v in lacking.items() if v}))
    assert kinds([found]) == [("missing_classes", "low", FIRST)]
    assert found.sentence == (
        f"{FIRST} lacks images of giraffe (0 of 102; 14.3% of the other subsets'), "
        "images of horse (2 of 102; 14.3% of the other subsets')."
    )


def test_subsets_that_have_all_classes_lack_nothing() -> None:
    assert missing_classes(with_labels()) == []


def test_a_small_subset_that_lacks_a_class_by_chance_is_not_told_so() -> None:
    few = {name: 2 for name in CLASSES if name != "giraffe"}
    assert missing_classes(with_labels(low_harbour_00=few)) == []
    assert missing_classes(with_labels(low_harbour_00={name: 10 * count for name, count in few.items()})) != []


def test_a_class_that_no_subset_of_a_group_has_is_said_of_the_group_once() -> None:
    report = a_report()
    rest = {name: count for name, count in EVEN.items() if name != "house"}
    (group, *_) = report.groups.groups
    changed = with_profiles(report, {name: {"label_counts": rest} for name in group.subsets}, label_counts=EVEN)
    (found,) = missing_classes(changed)
    assert kinds([found]) == [("missing_classes", "low", None)]
    assert "No subset of the group has an image of house (14.3%)" in found.sentence


def test_beyond_five_subsets_the_rest_is_counted() -> None:
    report = a_report()
    rest = {name: count for name, count in EVEN.items() if name != "house"}
    members = report.groups.groups[0].subsets[:7]
    found = missing_classes(
        with_profiles(report, {name: {"label_counts": rest} for name in members}, label_counts=EVEN)
    )
    assert len(found) == 6 and found[-1].subset is None
    assert found[-1].sentence.startswith("2 subsets more of the group lack")


WEATHERS = {"weather": {"sun": 40, "rain": 30, "snow": 30}}


def test_an_attributes_value_that_occurs_elsewhere_is_named_but_not_that_it_is_missing() -> None:
    changed = {FIRST: {"attribute_counts": {"weather": {"sun": 60, "rain": 40}}}}
    everyone = {"weather": WEATHERS["weather"] | {"": 50}}
    (found,) = missing_attributes(with_profiles(a_report(), changed, attribute_counts=everyone))
    assert kinds([found]) == [("missing_attributes", "low", FIRST)]
    assert found.sentence == f"{FIRST} lacks images with weather = snow (0 of 100; 30.0% of the other subsets')."


def test_like_attributes_and_none_at_all_give_no_advice() -> None:
    assert missing_attributes(with_profiles(a_report(), {}, attribute_counts=WEATHERS)) == []
    assert missing_attributes(a_report()) == []


# Classes that the model knows badly.


def with_recall(
    recall: float, *, images: int, training: int, distance: float = 0.7, taken_for: str = "dog", tested: int = 100
) -> GroupRecords:
    """One group of seven classes, of which giraffe is known worse than the others, which have 20 training images."""
    report = with_profiles(a_report(), {}, label_counts=EVEN | {"giraffe": training})
    evaluation = report.evaluations[0]
    place = CLASSES.index("giraffe")
    scores = [
        found.model_copy(update={"num_images": tested, "recall": recall if at == place else 0.9})
        for at, found in enumerate(evaluation.by_class)
    ]
    scores[place] = scores[place].model_copy(update={"num_images": images})
    matrix = [[0] * len(CLASSES) for _ in CLASSES]
    matrix[place][place] = round(recall * images)
    matrix[place][CLASSES.index(taken_for)] = images - round(recall * images)
    assert evaluation.separation is not None
    neighbours = [ClassNeighbour(label=name, nearest="dog", distance=distance) for name in CLASSES]
    changed = evaluation.model_copy(
        update={
            "by_class": scores,
            "balanced_accuracy": 0.85,
            "num_images": images + 6 * tested,
            "num_units": images + 6 * tested,
            "confusion_matrix": matrix,
            "separation": evaluation.separation.model_copy(update={"neighbours": neighbours, "mean_distance": 0.8}),
        }
    )
    report = report.model_copy(update={"evaluations": [changed, *report.evaluations[1:]]})
    return GroupRecords.of(report, report.groups.groups[0])


def test_more_images_are_advised_of_a_class_with_low_recall_and_few_images() -> None:
    (found,) = weak_classes(with_recall(0.5, images=100, training=5))
    assert found.kind == "more_of_class"
    assert found.sentence == (
        "More images of giraffe would pay: 50.0% of its 100 test images are recognised, 85.0% on the mean of classes, "
        "and it has 40 images, the median class 160. Recognised like the mean class it would bring +5.0 points of "
        "accuracy."
    )


def with_units(records: GroupRecords, *, of_all: int, of_giraffe: int | None) -> GroupRecords:
    """Keep images together: so many units of all test images, and of giraffe, are left."""
    evaluation = records.evaluation
    assert evaluation is not None
    scores = [
        found.model_copy(update={"num_units": of_giraffe}) if label == "giraffe" else found
        for label, found in zip(evaluation.classes, evaluation.by_class, strict=True)
    ]
    return replace(records, evaluation=evaluation.model_copy(update={"by_class": scores, "num_units": of_all}))


def test_a_class_is_not_weak_by_images_that_are_right_or_wrong_together() -> None:
    records = with_recall(0.6, images=100, training=5)
    (alone,) = weak_classes(records)
    (few,) = weak_classes(with_units(records, of_all=500, of_giraffe=60))
    assert "60.0% of its 100 test images are recognised" in alone.sentence
    assert "60.0% of its 100 test images (60 where kin count as one) are recognised" in few.sentence
    assert weak_classes(with_units(records, of_all=500, of_giraffe=6)) == []
    # Where units of a class are not counted, it has its share of them all.
    assert weak_classes(with_units(records, of_all=700, of_giraffe=None)) != []
    assert weak_classes(with_units(records, of_all=42, of_giraffe=None)) == []


@pytest.mark.parametrize(("share", "count"), [(0.5, 20), (0.0, 7), (1.0, 7), (0.25, 400)])
def test_the_upper_end_of_wilsons_interval_is_that_of_scipy(share: float, count: int) -> None:
    ours = highest_share(share, count)
    assert ours == pytest.approx(binomtest(round(share * count), count).proportion_ci(method="wilson").high)


def test_more_images_are_advised_against_where_there_are_enough_and_the_class_lies_close_to_another() -> None:
    (found,) = weak_classes(with_recall(0.5, images=100, training=40, distance=0.2))
    assert found.kind == "inseparable_class"
    assert "More images of giraffe alone would hardly pay" in found.sentence
    assert "taken for dog most, 0.20 away in the tuned features (mean of all pairs 0.80)" in found.sentence


@pytest.mark.parametrize(
    "changes",
    [
        # As well known as the others; too few test images to tell; a class of no weight; enough images, and apart;
        # close to one class, but taken for another.
        {"recall": 0.86},
        {"images": 2, "tested": 2},
        {"images": 12, "tested": 3000},
        {"training": 40},
        {"training": 40, "distance": 0.2, "taken_for": "horse"},
    ],
)
def test_nothing_is_advised_of_classes_without_evidence(changes: dict[str, Any]) -> None:
    assert weak_classes(with_recall(**{"recall": 0.5, "images": 100, "training": 5, **changes})) == []


def test_a_group_without_test_results_has_no_weak_classes_or_subsets() -> None:
    report = a_report().model_copy(update={"evaluations": []})
    records = GroupRecords.of(report, report.groups.groups[0])
    assert weak_classes(records) == weak_subsets(records) == untold_subsets(records) == []


# Subsets that the model knows badly.


def with_subset(
    interval: tuple[float, float], *, train: int = 180, diversity: tuple[float, float, float] = (7.0, 6.5, 7.5)
) -> GroupRecords:
    """The first group, whose accuracy is 0.9; its first subset has this accuracy, training images and diversity."""
    own = {"feature_diversity": diversity[0], "feature_diversity_interval": diversity[1:]}
    report = with_profiles(
        a_report(), {FIRST: own}, feature_diversity=7.0, feature_diversity_interval=(6.5, 7.5), label_counts=EVEN
    )
    counts = [
        found.model_copy(update={"train": train if found.subset == FIRST else 180})
        for found in report.catalogue.subsets
    ]
    evaluation = report.evaluations[0]
    scores = [
        found.model_copy(
            update={
                "num_images": 50,
                "accuracy": sum(interval) / 2 if found.subset == FIRST else 0.9,
                "accuracy_interval": interval if found.subset == FIRST else (0.85, 0.95),
            }
        )
        for found in evaluation.subsets
    ]
    changed = evaluation.model_copy(update={"subsets": scores, "num_images": 400, "accuracy": 0.9})
    report = report.model_copy(
        update={
            "evaluations": [changed, *report.evaluations[1:]],
            "catalogue": report.catalogue.model_copy(update={"subsets": counts}),
        }
    )
    return GroupRecords.of(report, report.groups.groups[0])


def test_more_images_are_advised_of_a_weak_subset_that_has_few() -> None:
    (found,) = weak_subsets(with_subset((0.6, 0.8), train=40))
    assert kinds([found]) == [("more_of_subset", "low", FIRST)]
    assert found.sentence == (
        f"More images of {FIRST} would pay: accuracy 70.0% [60.0, 80.0] on 50 test images, the rest of the group "
        "92.9%; it has 3.1% of the group's training images (40 of 1,300), an even share is 12.5%."
    )


def test_more_varied_images_are_advised_of_a_weak_subset_that_is_uniform() -> None:
    (found,) = weak_subsets(with_subset((0.6, 0.8), diversity=(4.0, 3.4, 4.6)))
    assert kinds([found]) == [("varied_samples", "low", FIRST)]
    assert "as different as 4.0 [3.4, 4.6], those of the median subset of the group as 7.0" in found.sentence


@pytest.mark.parametrize(
    "changes",
    [
        # As good as the rest, within its interval; neither few nor uniform; as uniform as its interval allows.
        {"interval": (0.75, 0.96), "train": 40, "diversity": (4.0, 3.4, 4.6)},
        {},
        {"diversity": (6.0, 4.0, 7.5)},
    ],
)
def test_nothing_is_advised_of_subsets_without_evidence(changes: dict[str, Any]) -> None:
    assert weak_subsets(with_subset(**{"interval": (0.6, 0.8), **changes})) == []


def test_diversity_that_was_not_measured_advises_nothing() -> None:
    report = with_profiles(a_report(), {}, feature_diversity=None, feature_diversity_interval=None)
    records = GroupRecords.of(report, report.groups.groups[1])
    assert [found for found in weak_subsets(records) if found.kind == "varied_samples"] == []


def test_subsets_with_too_few_test_images_are_named_and_others_are_not() -> None:
    (found,) = untold_subsets(with_subset((0.3, 0.9)))
    assert found.kind == "more_test_images" and "the accuracy of 1 subset" in found.sentence
    assert f"{FIRST} (50 test images)" in found.sentence
    assert untold_subsets(with_subset((0.7, 0.9))) == []
