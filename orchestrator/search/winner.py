"""The choice of a group's recipe among its trials."""

from __future__ import annotations

import math

from orchestrator.errors import SearchError
from orchestrator.records import Recipe, SearchResult, Trial


def choose_recipe(result: SearchResult) -> Recipe:
    """Pick the trial with the best value; of equals, deeper freeze wins, then fewer epochs, then age.

    Raises SearchError listing the errors when no trial completed.
    """
    candidates = [(value, trial) for trial in result.trials if (value := _value(trial)) is not None]
    if not candidates:
        raise SearchError(
            f"the search of group {result.group} needs at least one completed trial",
            value=f"{len(result.trials)} trials, errors: {_errors(result)}",
            remedy="Mend the cause of these errors, or give search.space values that can be trained.",
        )
    sign = -1.0 if result.mode == "max" else 1.0
    value, best = min(
        candidates,
        key=lambda candidate: (
            sign * candidate[0],
            -candidate[1].hyperparameters.freeze_depth,
            candidate[1].hyperparameters.epochs,
        ),
    )
    return Recipe(
        group=result.group,
        trial_id=best.trial_id,
        metric=result.metric,
        value=value,
        hyperparameters=best.hyperparameters,
    )


def _value(trial: Trial) -> float | None:
    completed = trial.status == "complete" and trial.value is not None and math.isfinite(trial.value)
    return trial.value if completed else None


def _errors(result: SearchResult) -> str:
    counts: dict[str, int] = {}
    for trial in result.trials:
        text = trial.error or "no value"
        counts[text] = counts.get(text, 0) + 1
    return "; ".join(f"{text} ({count}x)" for text, count in counts.items()) or "none"
