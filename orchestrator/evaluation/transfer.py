"""Judges whether transfer helps or hurts one subset: its group's model against others, on the same images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import DataError
from orchestrator.evaluation.intervals import CONFIDENCE, Sums, resample
from orchestrator.evaluation.paired_answers import (
    Correct,
    Names,
    PairedAnswers,
    PairedGain,
    count_units,
    counted_rows,
)
from orchestrator.records import ArmGain, SplitComparison, SubsetGain, TransferVerdict

TRANSFER_VERSION = 3

TRANSFERS_LESS = ("from_scratch", "head_only", "target_only", "subset_only")
"""Arms that are given less than a group's model: no pretrained weights; of other subsets' samples no features, but the
head; no images of a source; no other subset's samples. A pooled model is given more."""

NO_TRANSFER = ("from_scratch", "target_only", "subset_only")
"""Arms that something that transfers is wholly kept from: pretrained weights, a source's images, other subsets."""

_BEFORE = "before"


def joint_gains(answers: PairedAnswers, num_units: int, *, bootstrap_samples: int, seed: int) -> list[ArmGain]:
    """Give how much more accurate one model is than each of several others on the same images, at least one.

    `num_units` counts what is drawn as one: images, those of one kin together. The intervals hold all at once with 95%:
    images are drawn once for all models, together with their kin, and an interval reaches from its centre as many
    bootstrap standard errors as the largest deviation among all gains does in 95% of resamples (single-step max-T;
    Westfall and Young, "Resampling-Based Multiple Testing", 1993). Before images are drawn, one that is won and one
    that is lost are added against each other model, of the mean size of a unit, without which a handful of images would
    make a gain look sure (Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", 2012). Raises DataError without images.
    """
    if not answers.others:
        return []
    if not answers.num_images:
        raise DataError("models must be compared on one or more images", value=0)
    rows, counts = answers.sums()
    differences = np.column_stack([rows[:, :1] - rows[:, 1:-1], rows[:, -1]])
    totals = counts @ differences
    won_and_lost = _one_won_and_one_lost(answers.num_images / num_units, len(answers.others))
    centres = _means(np.vstack([totals, won_and_lost]).sum(axis=0, keepdims=True))[0]
    drawn, counts = counted_rows(np.vstack([differences, won_and_lost]), np.append(counts, [1, 1]))
    estimates = resample(drawn, counts, bootstrap_samples, seed, _means)
    errors = estimates.std(axis=0)
    reach = np.quantile((np.abs(estimates - centres) / errors).max(axis=1), CONFIDENCE) * errors
    low, high = np.clip([centres - reach, centres + reach], -1.0, 1.0)
    return [
        ArmGain(
            name=name,
            accuracy=answers.accuracy_of(name),
            gain=int(totals[place]) / answers.num_images,
            gain_interval=(float(low[place]), float(high[place])),
        )
        for place, name in enumerate(answers.others)
    ]


def compare_on_split(
    correct: Correct,
    others: Mapping[str, Correct],
    together: Names,
    *,
    bootstrap_samples: int,
    seed: int,
) -> SplitComparison | None:
    """Compare a group's model with others on one subset's images of a split; None without images.

    `together` [n] says what images share with their kin, which are drawn as one.
    """
    if not len(correct):
        return None
    answers, num_units = PairedAnswers.of(correct, others, together), count_units(together)
    return SplitComparison(
        num_images=len(correct),
        num_units=num_units,
        accuracy=answers.accuracy,
        others=joint_gains(answers, num_units, bootstrap_samples=bootstrap_samples, seed=seed),
    )


def judge_transfer(comparison: SplitComparison | None) -> TransferVerdict | None:
    """Judge by the joint intervals of the gains of a group's model over the arms on one subset's test images.

    `hurts`: at least one arm that transfers less (`TRANSFERS_LESS`) has an interval wholly below 0. `helps`: otherwise,
    the interval of every arm that something is wholly kept from (`NO_TRANSFER`) is wholly above 0, and there is one.
    `no_difference` in all other cases. The pooled model, which transfers more, decides nothing, but widens what the
    intervals hold for. None where no arm that transfers less could be compared.
    """
    gains = {} if comparison is None else {found.name: found.gain_interval for found in comparison.others}
    less = [gains[name] for name in TRANSFERS_LESS if name in gains]
    if not less:
        return None
    if any(high < 0 for _, high in less):
        return "hurts"
    none = [gains[name] for name in NO_TRANSFER if name in gains]
    return "helps" if none and all(low > 0 for low, _ in none) else "no_difference"


def choose_better(comparison: SplitComparison | None) -> ArmGain | None:
    """Choose, on validation images, the model that is most accurate of those better than the group's beyond interval.

    None where there is no such model. Of equals the first.
    """
    others = [] if comparison is None else comparison.others
    better = [found for found in others if found.gain_interval[1] < 0]
    return min(better, key=lambda found: found.gain, default=None)


def gain_over(
    subset: str,
    after: Mapping[str, Correct],
    before: Mapping[str, Correct],
    together: Mapping[str, Names],
    *,
    bootstrap_samples: int,
    seed: int,
) -> SubsetGain:
    """Say what a subset gains by one model over another; all go by split, `val` and `test`."""
    found: dict[str, PairedGain | tuple[None, None]] = {}
    for split in ("val", "test"):
        answers = PairedAnswers.of(after[split], {_BEFORE: before[split]}, together[split])
        found[split] = answers.gain_over(_BEFORE, bootstrap_samples, seed) if answers.num_images else (None, None)
    return SubsetGain(
        subset=subset,
        validation_gain=found["val"][0],
        validation_interval=found["val"][1],
        test_gain=found["test"][0],
        test_interval=found["test"][1],
    )


def _one_won_and_one_lost(size: float, num_others: int) -> Sums:
    won = np.full(num_others + 1, size)
    return np.stack([won, np.append(-won[:-1], size)])


def _means(sums: Sums) -> NDArray[np.float64]:
    means: NDArray[np.float64] = sums[:, :-1] / sums[:, -1:]
    return means
