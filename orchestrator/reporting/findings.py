"""Says in words, by rule from the numbers, what an experiment found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from orchestrator.diversity.distinctness import is_indistinct
from orchestrator.records import (
    Assignment,
    Assignments,
    Baseline,
    Catalogue,
    CopyCount,
    DepthCost,
    Evaluation,
    Groups,
    PooledComparison,
    Recipe,
    Report,
    SearchCosts,
    SearchResult,
)
from orchestrator.reporting.wording import (
    counted,
    duration,
    enumerated,
    metric_value,
    number,
    percent,
    percent_interval,
    points,
    points_interval,
    recipe_sentence,
    shortened,
)

Verdict = Literal["better", "worse", "unclear", "unknown"]

_SURE = 0.9
_OPPONENTS = {
    "fixed_rule": "the fixed rule",
    "head_only": "training the head alone",
    "from_scratch": "training from scratch",
    "target_only": "training on the target alone",
    "one_head": "one head for all subsets",
}


def verdict(gain_interval: tuple[float, float] | None) -> Verdict:
    """Judge a gain by its interval: unclear when it holds 0, unknown when there is none."""
    if gain_interval is None:
        return "unknown"
    low, high = gain_interval
    if low > 0:
        return "better"
    return "worse" if high < 0 else "unclear"


def tally(gain_intervals: Sequence[tuple[float, float] | None], *, better: str = "is better") -> str:
    """Say in how many subsets something is better, worse or neither, by the intervals of its gains there."""
    verdicts = [verdict(interval) for interval in gain_intervals]
    tallies = {
        better: verdicts.count("better"),
        "is worse": verdicts.count("worse"),
        "shows no clear difference": verdicts.count("unclear"),
        "could not be compared": verdicts.count("unknown"),
    }
    return enumerated([f"in {count} it {what}" for what, count in tallies.items() if count])


def headline(report: Report) -> str:
    """Sum up all groups against the fixed rule in one or two sentences."""
    verdicts = [
        verdict(baseline.accuracy_gain_interval)
        for evaluation in report.evaluations
        for baseline in evaluation.baselines
        if baseline.name == "fixed_rule"
    ]
    if not any(known != "unknown" for known in verdicts):
        return "There is no test result yet that compares the recipes with the fixed rule."
    total = len(report.groups.groups)
    tallies = [
        (verdicts.count("unclear"), "no clear difference"),
        (verdicts.count("worse"), "worse"),
        (total - len(verdicts) + verdicts.count("unknown"), "not compared"),
    ]
    rest = "".join(f"; {what} in {tally}" for tally, what in tallies if tally)
    won = f"{verdicts.count('better')} of {counted(total, 'group')}"
    sentence = f"The recipes beat the fixed rule on test accuracy in {won}{rest}."
    pooled = [pooled_finding(found) for found in report.comparisons if found.baseline == "fixed_rule"]
    return " ".join([sentence, *pooled])


def copies_finding(catalogue: Catalogue) -> str:
    """Say how many images are copies of others, what that does, and what was done; nothing where there are none."""
    kinds = {"exact": catalogue.exact_copies, "near, the exact ones among them": catalogue.near_copies}
    found = {kind: counts for kind, counts in kinds.items() if counts is not None and counts.copies}
    if not found:
        return ""
    said = f"Copies of other images: {'; '.join(_copies(kind, counts) for kind, counts in found.items())}."
    if catalogue.deduplicate != "none":
        left_out = counted(catalogue.num_copies_left_out, "image")
        return f"{said} {left_out} left out as copies; what stays of a picture is on one side of the split."
    if not any(counts.pictures_across_splits for counts in found.values()):
        return said
    return (
        f"{said} Warning: what is learned and tested as well makes scores too good; "
        "data.deduplicate: exact keeps a picture on one side of the split."
    )


def _copies(kind: str, counts: CopyCount) -> str:
    parts = [f"{counts.copies:,} {kind}", f"{counts.copies_within_subsets:,} of them within a subset"]
    if counts.pictures_across_splits:
        parts.append(f"{counted(counts.pictures_across_splits, 'picture')} in more than one split")
    if counts.pictures_of_several_labels:
        parts.append(f"{counted(counts.pictures_of_several_labels, 'picture')} of several labels")
    return ", ".join(parts)


def grouping_finding(groups: Groups) -> str:
    """Say whether the subsets differ beyond chance, and whose place in its group is unsure; nothing where unknown."""
    if groups.difference_p_value is None:
        return ""
    if is_indistinct(groups.difference_p_value):
        said = (
            f"The subsets differ no more than chance would have it (p = {groups.difference_p_value:.2f}): "
            "one group would be as honest as several."
        )
    else:
        said = "The subsets differ by more than chance."
    shares = {name: share for group in groups.groups for name, share in group.stability.items()}
    unsure = sorted((name for name, share in shares.items() if share < _SURE), key=lambda name: shares[name])
    if not unsure:
        return said
    named = shortened([f"{name} ({shares[name]:.0%})" for name in unsure], most=3)
    return (
        f"{said} {counted(len(unsure), 'subset')} would come to the same group less than nine times in ten, "
        f"were they measured on other images: {named}."
    )


def assignment_notes(found: Assignments) -> list[str]:
    """Say, a line each, what speaks against trusting the assignments of later subsets; nothing where nothing does."""
    notes = [f"{subset.subset}: {doubt}" for subset in found.assignments for doubt in _doubts(subset)]
    if found.unmeasured:
        notes.append(f"Without a usable image in the measured split: {shortened(found.unmeasured, most=5)}.")
    if found.num_quarantined:
        notes.append(f"{counted(found.num_quarantined, 'row')} could not be used.")
    return notes


def _doubts(subset: Assignment) -> list[str]:
    doubts = []
    images = counted(subset.num_images, "image")
    if subset.is_small:
        doubts.append(f"{images} are few to measure diversity by.")
    if not subset.is_comparable:
        doubts.append(f"feature diversity was compared at more than {images}; with so few it scores too low.")
    if subset.certainty is not None and subset.certainty < _SURE:
        doubts.append("measured on other images it could well come to another group.")
    if subset.unknown_classes:
        unknown = counted(len(subset.unknown_classes), "class")
        named = shortened(subset.unknown_classes, most=5)
        doubts.append(f"{unknown} unknown to the model of {subset.group}: {named}.")
    return doubts


def group_finding(search: SearchResult | None, recipe: Recipe | None, evaluation: Evaluation | None) -> str:
    """State one group's outcome in one sentence."""
    if recipe is None:
        tried = 0 if search is None else len(search.trials)
        return f"No recipe was found: none of {counted(tried, 'trial')} completed."
    found = recipe_sentence(recipe.hyperparameters)
    if evaluation is None or evaluation.accuracy is None:
        return f"The best recipe is {found}; there are no test results for it."
    reached = f"{percent(evaluation.accuracy)} test accuracy {percent_interval(evaluation.accuracy_interval)}"
    return f"With {found} the model reaches {reached}; {_compared(evaluation.baselines)}."


def choice_finding(recipe: Recipe) -> str:
    """State whose recipe a group got, why, and its score on fresh re-splits."""
    whose = {
        "group": "The recipe is the group's own",
        "pooled": "The recipe is the one that is best over all groups",
        "fixed_rule": "The recipe is the fixed rule's",
    }[recipe.origin]
    reason = f": {recipe.reason}" if recipe.reason else ""
    if recipe.score is None or recipe.standard_error is None:
        return f"{whose}{reason}."
    score, error = (metric_value(value, recipe.metric) for value in (recipe.score, recipe.standard_error))
    runs = counted(recipe.runs, "fresh re-split")
    return f"{whose}{reason}. On {runs} of training and validation it scored {score} (standard error {error})."


def warm_start_finding(search: SearchResult) -> str:
    """State what recipes of earlier searches brought; nothing where there were none."""
    warm = [trial for trial in search.trials if trial.origin == "warm_start" and trial.value is not None]
    if not warm:
        return ""
    pick = min if search.mode == "min" else max
    known = [trial.value for trial in search.trials if trial.value is not None]
    best, best_warm = pick(known), pick(trial.value for trial in warm if trial.value is not None)
    seconds = sum(trial.seconds for trial in warm)
    return (
        f"{counted(len(warm), 'recipe')} of earlier searches reached {metric_value(best_warm, search.metric)} in "
        f"{duration(seconds)} of trial time; the best trial of all reached {metric_value(best, search.metric)}."
    )


def saving_finding(costs: SearchCosts) -> str:
    """State what keeping activations was predicted and measured to save over the epochs that were run."""
    kept = [depth for depth in costs.depths if depth.source == "activations"]
    if not kept:
        return "No activations were kept: at no freeze depth did the measured costs promise a saving."
    ran = [depth for depth in kept if depth.measured_epoch_s is not None]
    depths = enumerated([str(depth.depth) for depth in kept])
    built = f"Activations were kept for freeze depth {depths}, built in {duration(costs.build_seconds)}"
    if not ran:
        return f"{built}; no trial used them."
    spent = _measured_seconds(ran)
    predicted = sum(depth.num_epochs * depth.predicted_epoch_s for depth in ran)
    without = sum(depth.num_epochs * depth.predicted_uncached_epoch_s for depth in ran)
    pace = _pace(costs.depths)
    return (
        f"{built}. Their trials took {duration(spent)} ({duration(predicted)} predicted); without, at the pace of this "
        f"search, {duration(without * pace)} ({duration(without)} predicted)."
    )


def _measured_seconds(depths: Sequence[DepthCost]) -> float:
    return sum(depth.num_epochs * (depth.measured_epoch_s or 0.0) for depth in depths)


def _pace(depths: Sequence[DepthCost]) -> float:
    """Divide measured by predicted seconds: trials that run side by side are slower than a probe that runs alone.

    Heads only are left out where anything else ran: many of them train as one, which no prediction knows.
    """
    ran = [depth for depth in depths if depth.measured_epoch_s is not None]
    alone = [depth for depth in ran if depth.depth < len(depths) - 1]
    predicted = sum(depth.num_epochs * depth.predicted_epoch_s for depth in alone)
    return _measured_seconds(alone) / predicted if predicted > 0.0 else 1.0


def pooled_finding(comparison: PooledComparison) -> str:
    """State the comparison of all groups' recipes with one baseline over the pooled test images."""
    judgement = {
        "better": "they beat",
        "worse": "they fall behind",
        "unclear": "there is no clear difference from",
        "unknown": "they could not be compared with",
    }[verdict(comparison.accuracy_gain_interval)]
    return (
        f"Over all {counted(comparison.num_images, 'test image')} {judgement} {_opponent(comparison.baseline)} "
        f"({points(comparison.accuracy_gain)} points {points_interval(comparison.accuracy_gain_interval)})."
    )


def calibration_finding(evaluation: Evaluation) -> str:
    """State how far confidence is from accuracy, and what a temperature makes of it; nothing without test images."""
    error = evaluation.expected_calibration_error
    if error is None:
        return ""
    found = (
        f"Confidence and accuracy are {percent(error)} apart on average "
        f"{percent_interval(evaluation.expected_calibration_error_interval)}"
    )
    calibration = evaluation.calibration
    if calibration is None:
        return f"{found}. No temperature was fitted: no validation image was mistaken."
    sense = "too sure of itself" if calibration.temperature > 1.0 else "not sure enough of itself"
    scaled, loss = percent(calibration.expected_calibration_error), number(calibration.cross_entropy, 3)
    return (
        f"{found}. By {counted(calibration.num_images, 'validation image')} the model is {sense}: logits divided by "
        f"{number(calibration.temperature)} bring the test images to {scaled}, and their cross-entropy from "
        f"{number(evaluation.cross_entropy, 3)} to {loss}."
    )


def separation_finding(evaluation: Evaluation) -> str:
    """State how far the classes lie apart in the tuned features; nothing without test images."""
    found = evaluation.separation
    if found is None:
        return ""
    stated = (
        f"In the tuned features, scaled to unit length, test images are spread by a variance of "
        f"{number(found.variance_within, 3)} within classes and {number(found.variance_between, 3)} between them"
    )
    if not found.neighbours:
        return f"{stated}."
    nearest = min(found.neighbours, key=lambda neighbour: neighbour.distance)
    return (
        f"{stated}; means of classes are {number(found.mean_distance)} apart on average, those of {nearest.label} and "
        f"{nearest.nearest} least ({number(nearest.distance)})."
    )


def frequent_mistakes(evaluation: Evaluation, *, most: int = 5) -> list[str]:
    """Name the pairs of classes that were confused most often, each with its count and the class's images."""
    found = [
        (count, true, predicted)
        for true, row in enumerate(evaluation.confusion_matrix)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    found.sort(key=lambda mistake: (-mistake[0], mistake[1], mistake[2]))
    classes, matrix = evaluation.classes, evaluation.confusion_matrix
    return [
        f"{classes[true]} taken for {classes[predicted]} ({count:,} of {sum(matrix[true]):,})"
        for count, true, predicted in found[:most]
    ]


def _compared(baselines: Sequence[Baseline]) -> str:
    if not baselines:
        return "no baseline was trained"
    clauses = [
        _clause("it beats", baselines, "better"),
        _clause("there is no clear difference from", baselines, "unclear"),
        _clause("it falls behind", baselines, "worse"),
        _clause("it could not be compared with", baselines, "unknown"),
    ]
    return "; ".join(clause for clause in clauses if clause)


def _clause(beginning: str, baselines: Sequence[Baseline], wanted: Verdict) -> str:
    chosen = [baseline for baseline in baselines if verdict(baseline.accuracy_gain_interval) == wanted]
    opponents = [_opponent_with_gain(baseline) for baseline in chosen]
    return f"{beginning} {enumerated(opponents)}" if opponents else ""


def _opponent_with_gain(baseline: Baseline) -> str:
    name = _opponent(baseline.name)
    if baseline.accuracy_gain is None or baseline.accuracy_gain_interval is None:
        return f"{name} ({baseline.error})" if baseline.error else name
    return f"{name} ({points(baseline.accuracy_gain)} points {points_interval(baseline.accuracy_gain_interval)})"


def _opponent(name: str) -> str:
    return _OPPONENTS.get(name, name)
