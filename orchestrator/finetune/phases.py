"""Says what a strategy trains in each epoch: pure decisions about depths and heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.records import Hyperparameters


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Train the stages from `depth` on, and the head where `trains_head`, from the epoch `first_epoch` on."""

    first_epoch: int
    depth: int
    trains_head: bool = True


def plan_phases(hyperparameters: Hyperparameters, num_stages: int) -> tuple[Phase, ...]:
    """Plan the phases of a training over a backbone of `num_stages` stages, in their order; the first is epoch 1's.

    `FineTuneConfig` says what the strategies are. No phase of any trains a stage below the freeze depth: what those
    give can be kept for the whole training. One that is too short for all of its phases ends in an earlier one.
    """
    whole, head = hyperparameters.freeze_depth, Phase(first_epoch=1, depth=num_stages)
    fitted = _share_of(hyperparameters.head_share, hyperparameters.epochs)
    if whole == num_stages:
        return (head,)
    match hyperparameters.strategy:
        case "freeze":
            phases = [Phase(first_epoch=1, depth=whole)]
        case "gradual":
            phases = [
                Phase(first_epoch=1 + freed * hyperparameters.unfreeze_every, depth=num_stages - freed)
                for freed in range(num_stages - whole + 1)
            ]
        case "probe_then_finetune":
            phases = [head, Phase(first_epoch=1 + fitted, depth=whole)]
        case "feature_only":
            phases = [head, Phase(first_epoch=1 + fitted, depth=whole, trains_head=False)]
        case "feature_then_network":
            served = _share_of(0.5, hyperparameters.epochs - fitted)
            phases = [
                head,
                Phase(first_epoch=1 + fitted, depth=whole, trains_head=False),
                Phase(first_epoch=1 + fitted + served, depth=whole),
            ]
    return tuple(phase for phase in phases if phase.first_epoch <= hyperparameters.epochs)


def phase_of(phases: Sequence[Phase], epoch: int) -> Phase:
    """Give the phase that an epoch, counted from 1, belongs to."""
    return [phase for phase in phases if phase.first_epoch <= epoch][-1]


def depends_on_length(hyperparameters: Hyperparameters) -> bool:
    """Tell whether the phases of a training would be others if it had more epochs."""
    return hyperparameters.strategy not in ("freeze", "gradual")


def _share_of(share: float, epochs: int) -> int:
    """Give a share of epochs: at least one, and one less than all where there is more than one."""
    return max(1, min(epochs - 1, round(share * epochs)))
