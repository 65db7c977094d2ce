"""Words what a training by Reptile came to."""

from __future__ import annotations

from orchestrator.records import ReptilePhase
from orchestrator.reporting.wording import counted, number, percent


def reptile_length(phase: ReptilePhase) -> str:
    """Say how long an initialisation was learnt."""
    settings = phase.settings
    return (
        f"{counted(phase.history[-1].step, 'step')} of {counted(settings.tasks_per_step, 'task')} of "
        f"{counted(phase.num_subsets, 'subset')}"
    )


def reptile_end(phase: ReptilePhase) -> str:
    """Say how far the inner steps go: on held-out tasks, where there are any, and on the last that were learnt."""
    first, last = phase.history[0], phase.history[-1]
    inner = counted(phase.settings.inner_steps, "inner step")
    said = f"losses of the last tasks from {number(last.first_loss)} to {number(last.last_loss)} in {inner}"
    if first.accuracy is None or last.accuracy is None:
        return said
    error = "" if last.standard_error is None else f" (standard error {percent(last.standard_error)})"
    return (
        f"{percent(first.accuracy)} before and {percent(last.accuracy)} after{error} of validation images right after "
        f"{inner} on others of their classes; {said}"
    )
