"""Compares what serves every subset with the group's model, on the same test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.errors import DataError
from orchestrator.evaluation.answers import pack
from orchestrator.evaluation.intervals import paired_gain
from orchestrator.evaluation.predictions import Predictions, number_units
from orchestrator.evaluation.scoring import score
from orchestrator.records import Scores, SubsetEvaluation, SubsetModel, SubsetResult

SUBSET_EVALUATION_VERSION = 3


def judge_subsets(
    group: Predictions,
    own: Mapping[str, Predictions],
    models: Sequence[SubsetModel],
    *,
    classes: Mapping[str, list[str]],
    seconds: Mapping[str, float],
    bootstrap_samples: int,
    seed: int,
) -> SubsetEvaluation:
    """Score subsets' own models and compare them with their group's, image by image; kin is drawn together.

    `group` has the predictions of the group's model on all its test images, `own` by subset those of the models that
    subsets have, over their own `classes`; both in the catalogue's order. The record's group, paths, fingerprint and
    what trainings held are left to the caller. Raises DataError when a subset's predictions are of other images.
    """
    results = []
    served: list[np.ndarray] = []
    shared: list[np.ndarray] = []
    together: list[str] = []
    for model in models:
        alone = group.for_subset(model.subset)
        mine = own.get(model.subset)
        if mine is not None and list(mine.ids) != list(alone.ids):
            raise DataError(f"the models of {model.subset} must be compared on the same test images")
        served.append(alone.correct if mine is None else mine.correct)
        shared.append(alone.correct)
        together += alone.together
        found = SubsetResult(subset=model.subset, model=model.model, reason=model.reason)
        if mine is not None:
            found = found.model_copy(
                update={
                    "classes": classes[model.subset],
                    "seconds": seconds[model.subset],
                    "test_answers": pack(mine.correct),
                    **_compared(mine, alone, bootstrap_samples, seed),
                }
            )
        results.append(found)
    right, right_of_group = np.concatenate(served), np.concatenate(shared)
    accuracy = gain = interval = None
    if len(right):
        accuracy = float(right.mean())
        gain, interval = paired_gain(right, right_of_group, bootstrap_samples, seed, number_units(together))
    return SubsetEvaluation(
        group="", subsets=results, accuracy=accuracy, accuracy_gain=gain, accuracy_gain_interval=interval
    )


def _compared(mine: Predictions, alone: Predictions, bootstrap_samples: int, seed: int) -> dict[str, object]:
    scores: Scores = score(
        mine.probabilities, mine.indices, bootstrap_samples=bootstrap_samples, seed=seed, units=mine.units
    )
    if not len(mine):
        return {"scores": scores}
    gain, interval = paired_gain(mine.correct, alone.correct, bootstrap_samples, seed, mine.units)
    return {"scores": scores, "accuracy_gain": gain, "accuracy_gain_interval": interval}
