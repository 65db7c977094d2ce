"""Says by rule which classes and attributes a subset lacks, and where more images or more varied ones would pay."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from scipy.stats import binom, chi2

from orchestrator.records import (
    Advice,
    AdviceKind,
    ClassNeighbour,
    ClassScores,
    Evaluation,
    Report,
    SubsetProfile,
    SubsetScores,
)
from orchestrator.reporting.group_records import GroupRecords
from orchestrator.reporting.wording import counted, number, percent, percent_interval, points, shortened

FEW_IMAGES = 10
"""A subset with fewer images of a class than this has few."""

CHANCE = 0.01
"""What a draw of the subset's size from the others' images would have to make less likely than this is lacking."""

CLOSE = 0.5
"""Classes whose means are nearer than this part of the mean distance of all pairs are close in the tuned features."""

LEAST_POTENTIAL = 0.005
"""A class that could not bring the group's accuracy half a point is not worth a sentence."""

SMALL_SHARE = 0.5
"""A subset with less than this part of an even share of its group's training images has few of them."""

WIDE_INTERVAL = 0.3
"""An accuracy whose 95% interval is wider than this tells nothing."""

MOST_NAMED = 5
MOST_CLASSES = 3


def missing_classes(report: Report) -> list[Advice]:
    """Name the classes that a group or a subset lacks, or has few images of, where the other subsets have them.

    Less than 10 images, and so few that a random draw from the other subsets' images would have them with a chance of
    at most 1%: a small subset that lacks a rare class says nothing.
    """
    everyone = _total([profile.label_counts for profile in report.profile.subsets])
    advice: list[Advice] = []
    for group in report.groups.groups:
        records = GroupRecords.of(report, group)
        lacking = _lacking_classes(records.label_counts, everyone, report)
        unknown = [name for name in lacking if records.label_counts.get(name, 0) == 0]
        if unknown:
            named = shortened([f"{name} ({percent(lacking[name])})" for name in unknown], most=MOST_NAMED)
            sentence = (
                f"No subset of the group has an image of {named} of the other groups' images: its model cannot name "
                "what it has not seen."
            )
            advice.append(Advice(kind="missing_classes", group=group.name, sentence=sentence))
        found = {
            profile.subset: _lacking_classes(profile.label_counts, everyone, report) for profile in records.profiles
        }
        known = {name: {k: v for k, v in shares.items() if k not in unknown} for name, shares in found.items()}
        counts = {profile.subset: profile.label_counts for profile in records.profiles}
        advice += _by_subset("missing_classes", group.name, known, counts, "images of ")
    return advice


def missing_attributes(report: Report) -> list[Advice]:
    """Name the values of attributes that a subset lacks, or has few images of, by the rule of classes.

    A value that is missing is none to ask for.
    """
    advice: list[Advice] = []
    for column in _columns(report.profile.subsets):
        everyone = _total([_values(profile, column) for profile in report.profile.subsets])
        for group in report.groups.groups:
            counts = {found.subset: _values(found, column) for found in GroupRecords.of(report, group).profiles}
            lacking = {name: _lacking(found, everyone) for name, found in counts.items()}
            advice += _by_subset("missing_attributes", group.name, lacking, counts, f"images with {column} = ")
    return advice


def weak_classes(records: GroupRecords) -> list[Advice]:
    """Say of which classes more images would pay most, and of which they would not.

    A class is weak when its recall lies below the mean recall beyond its own interval (Wilson, "Probable inference, the
    law of succession, and statistical inference", 1927), and would bring the group half a point of accuracy or more,
    were it recognised like the mean class. Images that are kept together count as one in the interval: they are right
    or wrong together. With fewer images than the median class it wants more; with as many, and the class that it is
    taken for most so close in the tuned features, it does not. At most three, by what they would bring.
    """
    evaluation = records.evaluation
    if evaluation is None or evaluation.balanced_accuracy is None:
        return []
    counts = records.label_counts
    tested = [label for label, found in zip(evaluation.classes, evaluation.by_class, strict=True) if found.num_images]
    median = statistics.median(counts.get(label, 0) for label in tested)
    weak = sorted(_potentials(evaluation).items(), key=lambda entry: -entry[1])
    advice: list[Advice] = []
    for label, potential in weak[:MOST_CLASSES]:
        images, said = counts.get(label, 0), _recall(evaluation, label)
        if images < median:
            sentence = (
                f"More images of {label} would pay: {said}, and it has {counted(images, 'image')}, the median class "
                f"{number(median, 0)}. Recognised like the mean class it would bring {points(potential)} points of "
                "accuracy."
            )
            advice.append(Advice(kind="more_of_class", group=records.group.name, sentence=sentence))
        elif (close := _close_confusion(evaluation, label)) is not None:
            assert evaluation.separation is not None
            sentence = (
                f"More images of {label} alone would hardly pay: {said}, though it has {counted(images, 'image')}, "
                f"the median class {number(median, 0)}. It is taken for {close.nearest} most, {number(close.distance)} "
                f"away in the tuned features (mean of all pairs {number(evaluation.separation.mean_distance)}): look "
                "at the labels of both, at larger images, or at a smaller freeze depth."
            )
            advice.append(Advice(kind="inseparable_class", group=records.group.name, sentence=sentence))
    return advice


def weak_subsets(records: GroupRecords) -> list[Advice]:
    """Say which subsets want more images, or more varied ones.

    A subset is weak when the 95% interval of its accuracy lies below the accuracy of the rest of its group. It wants
    more images when it has less than half of an even share of the group's training images. It wants more varied ones
    when its feature diversity at equal N lies, with its interval, below the median of the others, of which there must
    be three. Of weak subsets the five that are farthest behind have a say.
    """
    if records.evaluation is None:
        return []
    behind: list[tuple[float, SubsetScores, float]] = []
    for scores in records.evaluation.subsets:
        rest = _accuracy_of_rest(records.evaluation, scores)
        if rest is None or scores.accuracy is None or scores.accuracy_interval is None:
            continue
        if scores.accuracy_interval[1] < rest:
            behind.append((rest - scores.accuracy, scores, rest))
    advice: list[Advice] = []
    for _, scores, rest in sorted(behind, key=lambda entry: -entry[0])[:MOST_NAMED]:
        weak = (
            f"accuracy {percent(scores.accuracy)} {percent_interval(scores.accuracy_interval)} on "
            f"{counted(scores.num_images, 'test image')}, the rest of the group {percent(rest)}"
        )
        advice += _more_images(records, scores.subset, weak) + _more_variety(records, scores.subset, weak)
    return advice


def untold_subsets(records: GroupRecords) -> list[Advice]:
    """Name the subsets that have too few test images to say anything of them by their scores."""
    if records.evaluation is None:
        return []
    untold = [
        f"{scores.subset} ({counted(scores.num_images, 'test image')})"
        for scores in records.evaluation.subsets
        if scores.accuracy_interval is None or scores.accuracy_interval[1] - scores.accuracy_interval[0] > WIDE_INTERVAL
    ]
    if not untold:
        return []
    sentence = (
        f"More test images first: the accuracy of {counted(len(untold), 'subset')} is known to no better than "
        f"{100 * WIDE_INTERVAL / 2:.0f} points up or down, so nothing is advised by it: "
        f"{shortened(untold, most=MOST_NAMED)}."
    )
    return [Advice(kind="more_test_images", group=records.group.name, sentence=sentence)]


def _lacking(counts: Mapping[str, int], everyone: Mapping[str, int]) -> dict[str, float]:
    """Give the categories of which this part of all images has too few, with their share of the others' images."""
    own, total = sum(counts.values()), sum(everyone.values())
    others = total - own
    if own == 0 or others == 0:
        return {}
    found = {}
    for name, images in everyone.items():
        count = counts.get(name, 0)
        share = (images - count) / others
        if count < FEW_IMAGES and binom.cdf(count, own, share) <= CHANCE:
            found[name] = share
    # What is farthest from its share comes first.
    return dict(sorted(found.items(), key=lambda entry: counts.get(entry[0], 0) / own - entry[1]))


def _lacking_classes(counts: Mapping[str, int], everyone: Mapping[str, int], report: Report) -> dict[str, float]:
    """Give what `_lacking` gives of classes; that images have no label at all is none to ask for."""
    labels = set(report.catalogue.labels)
    return {name: share for name, share in _lacking(counts, everyone).items() if name in labels}


def _by_subset(
    kind: AdviceKind,
    group: str,
    lacking: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, Mapping[str, int]],
    what: str,
) -> list[Advice]:
    """Say of each subset what it lacks, those that lack most first; beyond five, only how many there are."""
    subsets = sorted(
        (name for name, found in lacking.items() if found), key=lambda name: (-sum(lacking[name].values()), name)
    )
    advice: list[Advice] = []
    for subset in subsets[:MOST_NAMED]:
        own = counts[subset]
        total = sum(own.values())
        named = [
            f"{what}{category} ({own.get(category, 0)} of {total:,}; {percent(share)} of the other subsets')"
            for category, share in lacking[subset].items()
        ]
        sentence = f"{subset} lacks {shortened(named, most=MOST_NAMED)}."
        advice.append(Advice(kind=kind, group=group, subset=subset, sentence=sentence))
    if len(subsets) > MOST_NAMED:
        sentence = f"{counted(len(subsets) - MOST_NAMED, 'subset')} more of the group lack {what}what others have."
        advice.append(Advice(kind=kind, group=group, sentence=sentence))
    return advice


def _columns(profiles: Sequence[SubsetProfile]) -> list[str]:
    return list(dict.fromkeys(column for profile in profiles for column in profile.attribute_counts))


def _values(profile: SubsetProfile, column: str) -> dict[str, int]:
    return {value: count for value, count in profile.attribute_counts.get(column, {}).items() if value}


def _total(parts: Sequence[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def _potentials(evaluation: Evaluation) -> dict[str, float]:
    """Give what each weak class would bring the group's accuracy, were it recognised like the mean class."""
    found = {}
    for label, scores in zip(evaluation.classes, evaluation.by_class, strict=True):
        if scores.recall is None or evaluation.balanced_accuracy is None:
            continue
        high = highest_share(scores.recall, _num_units(evaluation, scores))
        potential = scores.num_images / evaluation.num_images * (evaluation.balanced_accuracy - scores.recall)
        if high < evaluation.balanced_accuracy and potential >= LEAST_POTENTIAL:
            found[label] = potential
    return found


def _num_units(evaluation: Evaluation, scores: ClassScores) -> float:
    """Count the test images of a class with kin as one; where nobody has, by what share they are of all images."""
    if scores.num_units is not None:
        return scores.num_units
    return max(1.0, scores.num_images * evaluation.num_units / evaluation.num_images)


def highest_share(share: float, count: float) -> float:
    """Give the upper end of the 95% Wilson interval of a share of so many."""
    squared = chi2.ppf(0.95, df=1)
    middle = share + squared / (2 * count)
    width = math.sqrt(squared * (share * (1 - share) / count + squared / (4 * count**2)))
    return float((middle + width) / (1 + squared / count))


def _recall(evaluation: Evaluation, label: str) -> str:
    scores = evaluation.by_class[evaluation.classes.index(label)]
    has_kin = scores.num_units is not None and scores.num_units < scores.num_images
    kin = f" ({scores.num_units:,} where kin count as one)" if has_kin else ""
    return (
        f"{percent(scores.recall)} of its {counted(scores.num_images, 'test image')}{kin} are recognised, "
        f"{percent(evaluation.balanced_accuracy)} on the mean of classes"
    )


def _close_confusion(evaluation: Evaluation, label: str) -> ClassNeighbour | None:
    """Give the nearest class in the tuned features where it is close, and what the class is taken for most."""
    separation = evaluation.separation
    if separation is None or separation.mean_distance is None:
        return None
    nearest = next((found for found in separation.neighbours if found.label == label), None)
    if nearest is None or nearest.distance >= CLOSE * separation.mean_distance:
        return None
    place = evaluation.classes.index(label)
    mistakes = {
        name: count
        for other, (name, count) in enumerate(zip(evaluation.classes, evaluation.confusion_matrix[place], strict=True))
        if other != place
    }
    return nearest if mistakes and mistakes[nearest.nearest] == max(mistakes.values()) > 0 else None


def _accuracy_of_rest(evaluation: Evaluation, scores: SubsetScores) -> float | None:
    rest = evaluation.num_images - scores.num_images
    if evaluation.accuracy is None or scores.accuracy is None or rest <= 0:
        return None
    return (evaluation.accuracy * evaluation.num_images - scores.accuracy * scores.num_images) / rest


def _more_images(records: GroupRecords, subset: str, weak: str) -> list[Advice]:
    total, even = sum(records.training.values()), 1 / len(records.group.subsets)
    share = records.training.get(subset, 0) / max(1, total)
    if share >= SMALL_SHARE * even:
        return []
    sentence = (
        f"More images of {subset} would pay: {weak}; it has {percent(share)} of the group's training images "
        f"({records.training.get(subset, 0):,} of {total:,}), an even share is {percent(even)}."
    )
    return [Advice(kind="more_of_subset", group=records.group.name, subset=subset, sentence=sentence)]


def _more_variety(records: GroupRecords, subset: str, weak: str) -> list[Advice]:
    own = next((profile for profile in records.profiles if profile.subset == subset), None)
    others = [
        profile.feature_diversity
        for profile in records.profiles
        if profile.subset != subset and profile.feature_diversity is not None
    ]
    if own is None or own.feature_diversity_interval is None or len(others) < 3:
        return []
    median = statistics.median(others)
    low, high = own.feature_diversity_interval
    if high >= median:
        return []
    sentence = (
        f"More varied images of {subset} would pay: {weak}; at equal N its images are as different as "
        f"{number(own.feature_diversity, 1)} [{number(low, 1)}, {number(high, 1)}], those of the median subset of the "
        f"group as {number(median, 1)}."
    )
    return [Advice(kind="varied_samples", group=records.group.name, subset=subset, sentence=sentence)]
