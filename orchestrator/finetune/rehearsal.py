"""Measures what an epoch of a training takes, on a part of its samples."""

from __future__ import annotations

import time

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import Samples, TrainingSettings
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.records import BackboneSpec, Hyperparameters


def epoch_seconds(
    classifier: Classifier,
    spec: BackboneSpec,
    train: Samples,
    validation: Samples,
    hyperparameters: Hyperparameters,
    settings: TrainingSettings,
    *,
    companion: Companion | None = None,
) -> float:
    """Give the wall seconds of an epoch: the second one, for the first also loads what all need. Trains the classifier.

    A training of a single pass takes all of its time for it. All that the recipe ever trains counts from the first
    epoch on, whatever phases its strategy has; so does a `companion`. Raises what `fine_tune` raises.
    """
    ends: list[float] = []

    def on_epoch(end: EpochEnd) -> None:
        ends.append(time.perf_counter())

    twice = hyperparameters.model_copy(update={"strategy": "freeze", "epochs": 2, "patience": None})
    started = time.perf_counter()
    fine_tune(classifier, spec, train, validation, twice, settings, on_epoch=on_epoch, companion=companion)
    return ends[1] - ends[0] if len(ends) > 1 else ends[0] - started
