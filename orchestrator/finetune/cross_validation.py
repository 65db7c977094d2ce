"""Trains one configuration on several folds in step, so that it can be judged, and stopped, by their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import Activations, Inputs, Samples, TrainingSettings
from orchestrator.finetune.loop import Training
from orchestrator.records import BackboneSpec, EpochMetrics, Hyperparameters

OnFolds = Callable[[Sequence[EpochMetrics]], None]


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Hold the samples that one fold trains on and is judged by, and their stored activations, if there are some."""

    train: Samples
    validation: Samples
    activations: Activations | None = None


def fine_tune_folds(
    new_classifier: Callable[[], Classifier],
    spec: BackboneSpec,
    folds: Sequence[Fold],
    hyperparameters: Hyperparameters,
    settings: TrainingSettings,
    *,
    on_epoch: OnFolds,
    source: Backbone | None = None,
    companion: Companion | None = None,
) -> Inputs:
    """Train a new classifier on each fold and tell what every epoch found on each; gives what they were fed from.

    A fold finds what `fine_tune` finds on it alone. All are trained in step, an epoch of each in turn, so that a
    trial that lags by its mean ends on all of them. That holds the weights and the optimizer's state of every fold;
    they share `activation_bytes`. Where patience ends one fold, the others end with it: the mean is over all of them.
    Raises what `fine_tune` raises on any of them.
    """
    shared = replace(settings, activation_bytes=settings.activation_bytes // len(folds))
    trainings = [
        Training(
            new_classifier(),
            spec,
            fold.train,
            fold.validation,
            hyperparameters,
            shared,
            fold.activations,
            source,
            companion,
        )
        for fold in folds
    ]
    while not any(training.is_over for training in trainings):
        on_epoch([training.run_epoch() for training in trainings])
    return trainings[0].inputs
