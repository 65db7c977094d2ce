"""Says by rule where more epochs, a smaller freeze depth, more variety or more search would pay, and where not."""

from __future__ import annotations

import math

from orchestrator.records import Advice, AdviceKind
from orchestrator.reporting.group_records import GroupRecords
from orchestrator.reporting.wording import (
    BASELINE_TITLES,
    counted,
    duration,
    in_words,
    metric_value,
    number,
    points,
    points_interval,
)

LEAST_EPOCHS = 4
"""A training of fewer epochs has no curve to read."""

LATE = 1 / 3
"""The last part of the epochs tells what more of them would be like."""

UNLIKELY, LIKELY = 0.15, 0.4
"""Up to the first chance of a gain more search is advised against, from the second on it is advised."""

WORTHLESS = 0.01
"""A gain that is surely smaller than a point of accuracy is none to search for."""


def longer_training(records: GroupRecords) -> list[Advice]:
    """Say whether more epochs of the final training would pay.

    They would not where the last third of the epochs brought no more than the noise of a difference of two validation
    scores. They might where the last epoch is the best and the last third brought more than that; not under a schedule
    that lowers the rate, whose end is always best.
    """
    model, search = records.model, records.search
    if model is None or search is None or len(model.history) < LEAST_EPOCHS:
        return []
    sign = -1.0 if search.mode == "min" else 1.0
    scores = [sign * float(getattr(entry, search.metric)) for entry in model.history]
    late = math.ceil(LATE * len(scores))
    gained, noise = max(scores) - max(scores[:-late]), records.noise(sign * max(scores), search.metric)
    brought = (
        f"the last {late} of {len(scores)} epochs brought {_difference(max(0.0, gained), search.metric)} on "
        f"{counted(records.num_validation, 'validation image')}, where noise is {_difference(noise, search.metric)}"
    )
    if gained <= noise:
        enough = 1 + next(place for place, score in enumerate(scores) if score >= max(scores) - noise)
        sentence = f"More epochs would not pay: {brought}; epoch {enough} had come within it of the best."
        return [_advice(records, "enough_epochs", sentence)]
    is_whole = len(scores) == model.hyperparameters.epochs and model.hyperparameters.schedule == "constant"
    if model.best_epoch == len(scores) and is_whole:
        sentence = f"More epochs may pay: the last is the best, and {brought}."
        return [_advice(records, "more_epochs", sentence)]
    return []


def overfitting(records: GroupRecords) -> list[Advice]:
    """Say where more varied samples would pay more than longer training: where the model overfits.

    The validation loss rose from its least to the last epoch by more than twice its noise, while the training loss
    fell; and samples are not varied by images that are changed batch by batch, nor as the search chose. The subset of
    least feature diversity at equal N is named, where that was measured.
    """
    model = records.model
    if model is None or len(model.history) < LEAST_EPOCHS:
        return []
    if model.hyperparameters.changes_images or model.hyperparameters.varies_by_choice:
        return []
    last = model.history[-1]
    least = min(model.history, key=lambda entry: entry.val_loss)
    noise = records.noise(least.val_loss, "val_loss")
    if last.val_loss - least.val_loss <= 2 * noise or last.train_loss >= least.train_loss:
        return []
    measured = [profile for profile in records.profiles if profile.feature_diversity is not None]
    lowest = min(measured, key=lambda profile: profile.feature_diversity or 0.0, default=None)
    where = ""
    if lowest is not None and len(measured) > 1:
        where = f"; least varied at equal N is {lowest.subset} ({number(lowest.feature_diversity, 1)})"
    sentence = (
        "More varied samples, or augmentation, would pay more than longer training: from epoch "
        f"{least.epoch} to {last.epoch} the validation loss rose from {number(least.val_loss, 3)} to "
        f"{number(last.val_loss, 3)} nats (noise {number(noise, 3)}) while the training loss fell from "
        f"{number(least.train_loss, 3)} to {number(last.train_loss, 3)}{where}."
    )
    return [_advice(records, "varied_samples", sentence)]


def smaller_depth(records: GroupRecords) -> list[Advice]:
    """Say where a smaller freeze depth than was tried might pay.

    The best trial has the smallest depth of three or more that were tried to the end, above 0, and stands above the
    best of every other depth by more than noise.
    """
    search = records.search
    if search is None:
        return []
    sign = -1.0 if search.mode == "min" else 1.0
    best: dict[int, float] = {}
    for trial in search.trials:
        if trial.status == "complete" and trial.value is not None:
            place = trial.hyperparameters.freeze_depth
            best[place] = max(best.get(place, -math.inf), sign * trial.value)
    if len(best) < 3 or min(best) == 0:
        return []
    smallest = min(best)
    others = max(value for place, value in best.items() if place != smallest)
    noise = records.trial_noise(sign * best[smallest], search.metric)
    if best[smallest] - others <= noise:
        return []
    sentence = (
        f"A freeze depth below {smallest}, the smallest that was tried, may pay: its best trial reached "
        f"{metric_value(sign * best[smallest], search.metric)}, the best of any other depth "
        f"{metric_value(sign * others, search.metric)}, where noise is {_difference(noise, search.metric)}."
    )
    return [_advice(records, "smaller_depth", sentence)]


def more_search(records: GroupRecords) -> list[Advice]:
    """Say whether more search would pay, by the chance of a gain: not up to 15%, from 40% on it may."""
    prospect = None if records.investment is None else records.investment.prospect
    if prospect is None or records.search is None or UNLIKELY < prospect.chance < LIKELY:
        return []
    stated = (
        f"{counted(prospect.num_trials, 'trial')} more ({duration(prospect.seconds)} of trial time) would bring one "
        f"that is better by more than noise ({_difference(prospect.least_gain, records.search.metric)}) with a chance "
        f"of {prospect.chance:.0%}."
    )
    if prospect.chance <= UNLIKELY:
        return [_advice(records, "enough_search", f"More search would hardly pay: {stated}")]
    return [_advice(records, "more_search", f"More search may pay: {stated}")]


def baseline_suffices(records: GroupRecords) -> list[Advice]:
    """Say where the cheapest baseline does as well: the interval of the gain over it ends below a point."""
    gain = None if records.investment is None else records.investment.gain
    if gain is None or gain.interval[1] >= WORTHLESS or gain.extra_seconds <= 0:
        return []
    title = BASELINE_TITLES.get(gain.baseline, in_words(gain.baseline))
    sentence = (
        f"For such subsets the cheapest baseline, {title}, does as well: {points(gain.gain)} points "
        f"{points_interval(gain.interval)} on {counted(gain.num_images, 'test image')} were gained over it for "
        f"{duration(gain.extra_seconds)} more."
    )
    return [_advice(records, "baseline_suffices", sentence)]


def _difference(value: float, metric: str) -> str:
    return f"{100 * value:.1f} points of accuracy" if metric == "val_accuracy" else f"{number(value, 3)} nats of loss"


def _advice(records: GroupRecords, kind: AdviceKind, sentence: str) -> Advice:
    return Advice(kind=kind, group=records.group.name, sentence=sentence)
