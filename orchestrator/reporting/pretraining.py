"""Words where pretrained weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.records import Pretraining, PretrainingPhase, ReptilePhase, SimSiamPhase
from orchestrator.reporting.pretraining_inputs import inputs_findings
from orchestrator.reporting.reptile_findings import reptile_end, reptile_length
from orchestrator.reporting.wording import counted, duration, enumerated, number, percent, shortened

OBJECTIVE_TITLES = {
    "supervised": "supervised",
    "simsiam": "SimSiam, without labels",
    "reptile": "Reptile, a start for each subset",
}


@dataclass(frozen=True, kw_only=True)
class PhaseRow:
    """Hold what the report's table says of one phase of a pretraining.

    Nobody has kept what the workers of earlier records held; `money` is known where prices are, too.
    """

    objective: str
    num_images: int
    length: str
    num_workers: int
    seconds: float
    gpu_hours: float | None
    money: float | None
    ended: str


def pretraining_finding(pretraining: Pretraining) -> str:
    """Say in a few sentences what weights were pretrained on, how, and how good they are."""
    objectives = enumerated([OBJECTIVE_TITLES[phase.objective] for phase in pretraining.phases])
    learnt = f" of {counted(len(pretraining.classes), 'class')}" if pretraining.classes else ""
    said = (
        f"The weights were pretrained ({objectives}) on {pretraining.num_learnt:,} of "
        f"{counted(pretraining.num_images, 'image')}{learnt} at "
        f"{pretraining.data_uri} in {duration(pretraining.seconds)}."
    )
    if pretraining.classes:
        said += f" Classes: {shortened(pretraining.classes, most=8)}."
    if pretraining.neighbour_accuracy is not None:
        said += (
            " Among training images of the source, the 20 nearest others name an image's label rightly in "
            f"{percent(pretraining.neighbour_accuracy)}."
        )
    return " ".join([said, *inputs_findings(pretraining)])


def phase_rows(pretraining: Pretraining, prices: Mapping[str, float]) -> list[PhaseRow]:
    """Give a row for each phase, in their order; `prices` are those of an hour of each resource, if any are known."""
    return [
        PhaseRow(
            objective=OBJECTIVE_TITLES[phase.objective],
            num_images=phase.num_images,
            length=_length_of(phase),
            num_workers=phase.num_workers,
            seconds=phase.seconds,
            gpu_hours=_hours(phase, {"GPU": 1.0}),
            money=_hours(phase, prices) if prices else None,
            ended=_end_of(phase),
        )
        for phase in pretraining.phases
    ]


def _hours(phase: PretrainingPhase, weights: Mapping[str, float]) -> float | None:
    """Give the hours of what a phase held, each resource by its weight; None where nobody has kept what it held."""
    held = phase.worker_resources
    if not held:
        return None
    return phase.seconds * phase.num_workers / 3600 * sum(weights.get(name, 0.0) * held[name] for name in held)


def _length_of(phase: PretrainingPhase) -> str:
    return reptile_length(phase) if isinstance(phase, ReptilePhase) else counted(len(phase.history), "epoch")


def _end_of(phase: PretrainingPhase) -> str:
    if isinstance(phase, ReptilePhase):
        return reptile_end(phase)
    if isinstance(phase, SimSiamPhase):
        last = phase.history[-1]
        return f"loss {number(last.loss)} (-1 is the least), spread of outputs {number(last.spread)} (1 is the most)"
    return f"{percent(phase.accuracy)} of validation images right in epoch {phase.best_epoch}"
