"""What the records of a test say of a baseline, from its training and from comparisons with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.evaluation.gathering import HeldOrTallied
from orchestrator.records import Baseline, BaselineResult

_ACCURACIES = ("accuracy", "accuracy_interval", "accuracy_gain", "accuracy_gain_interval")


def accuracies(gathered: HeldOrTallied, result: BaselineResult, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Give the fields of a `Baseline` that compare accuracies image by image; none if it failed, or without images."""
    if result.correct is None or not len(gathered):
        return {}
    measured = [
        *gathered.accuracy_of(result.name, bootstrap_samples, seed),
        *gathered.gain_over(result.name, bootstrap_samples, seed),
    ]
    return dict(zip(_ACCURACIES, measured, strict=True))


def baseline_with(result: BaselineResult, measures: Mapping[str, Any]) -> Baseline:
    """Describe a baseline by its training and what was measured of it; accuracies that are not there are None."""
    return Baseline(
        name=result.name,
        hyperparameters=result.hyperparameters,
        seconds=result.seconds,
        error=result.error,
        resources=result.resources,
        **{**dict.fromkeys(_ACCURACIES), **measures},
    )
