"""Compares what serves every subset with the group's model, on the same test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.errors import DataError
from orchestrator.evaluation.answers import pack
from orchestrator.evaluation.gathering import gather
from orchestrator.evaluation.paired_answers import Correct, Names, PairedAnswers, add_up
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.records import SubsetEvaluation, SubsetModel, SubsetResult

SUBSET_EVALUATION_VERSION = 3

_GROUP = "group"


def judge_subset(
    model: SubsetModel,
    own: PredictionParts,
    correct_of_group: Correct,
    *,
    classes: list[str],
    seconds: float,
    bootstrap_samples: int,
    seed: int,
) -> tuple[SubsetResult, PairedAnswers]:
    """Score a subset's own model and compare it with its group's, image by image; kin is drawn together.

    `own` are the predictions of the subset's model over its `classes`, `correct_of_group` [n] says which of the same
    images the group's model got right; both in the catalogue's order. With the result come the answers that it stands
    on, for `compare_subsets`. Raises DataError when they are of different numbers of images.
    """
    if len(own) != len(correct_of_group):
        raise DataError(
            f"the models of {model.subset} must be compared on the same test images",
            value=f"{len(own)} and {len(correct_of_group)} images",
        )
    gathered = gather(own.with_baselines({_GROUP: correct_of_group}), [_GROUP])
    found = SubsetResult(
        subset=model.subset,
        model=model.model,
        reason=model.reason,
        classes=classes,
        seconds=seconds,
        scores=gathered.scores(bootstrap_samples, seed),
        test_answers=pack(np.concatenate([part.correct for part in own.parts()])),
    )
    if len(gathered):
        gain, interval = gathered.gain_over(_GROUP, bootstrap_samples, seed)
        found = found.model_copy(update={"accuracy_gain": gain, "accuracy_gain_interval": interval})
    return found, gathered.answers


def judge_shared(model: SubsetModel, correct_of_group: Correct, together: Names) -> tuple[SubsetResult, PairedAnswers]:
    """Describe a subset that its group's model serves, and give the answers of that in place of its own model's.

    `together` [n] says what each image shares with its kin.
    """
    answers = PairedAnswers.of(correct_of_group, {_GROUP: correct_of_group}, together)
    return SubsetResult(subset=model.subset, model=model.model, reason=model.reason), answers


def compare_subsets(
    judged: Sequence[tuple[SubsetResult, PairedAnswers]], *, bootstrap_samples: int, seed: int
) -> SubsetEvaluation:
    """Put the results of a group's subsets, of which there is one, together, and compare what serves them all.

    Kin is drawn together also where it is spread over subsets. The record's group, paths, fingerprint and what
    trainings held are left to the caller.
    """
    answers = add_up(found for _, found in judged)
    accuracy = gain = interval = None
    if answers.num_images:
        accuracy = answers.accuracy
        gain, interval = answers.gain_over(_GROUP, bootstrap_samples, seed)
    return SubsetEvaluation(
        group="",
        subsets=[found for found, _ in judged],
        accuracy=accuracy,
        accuracy_gain=gain,
        accuracy_gain_interval=interval,
    )
