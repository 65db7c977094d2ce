"""What a study keeps of a trial in Optuna's user attributes, and how it is read back."""

from __future__ import annotations

import math

from optuna.trial import FrozenTrial, TrialState

from orchestrator.records import EpochMetrics, Trial
from orchestrator.search.proposals import parameters_of
from orchestrator.search.space import SearchSpace

_STATUSES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


def details_of(trial: Trial) -> dict[str, object]:
    """Give the attributes that keep an ended trial; `error` is None unless it failed or its value is not finite."""
    error = _error(trial)
    return {
        "history": [epoch.model_dump() for epoch in finite_history(trial)],
        "seconds": trial.seconds,
        "started": trial.started,
        "inputs": trial.inputs,
        # Optuna gives a pruned trial the last intermediate value, not the best.
        "value": trial.value if error is None else None,
        "standard_error": trial.standard_error if error is None else None,
        "error": error,
    }


def record_of(trial: FrozenTrial, *, group: str, space: SearchSpace) -> Trial:
    """Read a finished trial back."""
    attributes = trial.user_attrs
    return Trial.model_validate(
        {
            "trial_id": f"{group}-{trial.number}",
            "hyperparameters": space.complete(parameters_of(trial)),
            "status": _STATUSES[trial.state],
            "value": attributes.get("value", trial.value),
            "standard_error": attributes.get("standard_error"),
            "history": attributes.get("history", []),
            "seconds": attributes.get("seconds", 0.0),
            "error": attributes.get("error"),
            "origin": origin_of(trial),
            "started": attributes.get("started", 0.0),
            "inputs": attributes.get("inputs", "pixels"),
        }
    )


def finite_history(trial: Trial) -> list[EpochMetrics]:
    """Give the epochs of which every metric is finite."""
    return [
        epoch
        for epoch in trial.history
        if all(map(math.isfinite, (epoch.train_loss, epoch.val_loss, epoch.val_accuracy)))
    ]


def origin_of(trial: FrozenTrial) -> str:
    """Say where a trial's configuration came from."""
    return str(trial.user_attrs.get("origin", "sampler"))


def place_of(trial: FrozenTrial) -> tuple[bool, int]:
    """Give the place in the queue: repeats of interrupted trials first, in the order in which those were asked."""
    repeated = trial.user_attrs.get("place")
    return repeated is None, trial.number if repeated is None else int(repeated)


def is_result(trial: FrozenTrial) -> bool:
    """Tell whether a trial has ended by itself: one that was interrupted has not."""
    return trial.state.is_finished() and not trial.user_attrs.get("interrupted", False)


def _error(trial: Trial) -> str | None:
    if trial.status == "failed":
        return trial.error or "the trial failed without an error message"
    if trial.value is None or not math.isfinite(trial.value):
        return trial.error or f"the trial's value must be a finite number, got {trial.value}"
    return None
