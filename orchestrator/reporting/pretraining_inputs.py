"""Words what a pretraining had beside its source: what it began with, what regularised it, and the run's own images."""

from __future__ import annotations

from orchestrator.records import (
    Catalogue,
    Hyperparameters,
    Pretraining,
    PretrainingTarget,
    StartingWeights,
    SupervisedPhase,
)
from orchestrator.reporting.wording import counted, percent, shortened

_REGULARIZERS = {
    "l2_sp": "L2-SP toward what it began with",
    "cosine": "the cosine distance from what it began with",
    "euclidean": "the Euclidean distance from what it began with",
    "orthogonal": "the orthogonal regulariser against what it began with",
    "l1": "L1",
    "l2": "L2",
}
_SCOPES = {"backbone": "the backbone", "head": "the head", "both": "backbone and head"}


def inputs_findings(pretraining: Pretraining) -> list[str]:
    """Say in a sentence each what a pretraining began with, learnt beside its source, and was regularised by."""
    supervised = next((phase for phase in pretraining.phases if isinstance(phase, SupervisedPhase)), None)
    return [
        *([] if pretraining.start is None else [_start(pretraining.start)]),
        *([] if pretraining.target is None else [_target(pretraining.target)]),
        *([] if supervised is None else _regularizer(supervised.hyperparameters)),
    ]


def cache_finding(source: Catalogue) -> str | None:
    """Say what becomes of a source's images that the pixel cache does not hold; None where it holds all."""
    if source.num_cached == source.num_images:
        return None
    return (
        f"{source.num_cached:,} of {counted(source.num_images, 'image')} of the source are cached as pixels: "
        "supervised pretraining and SimSiam stream all, Reptile draws from the cached ones (see data.max_cache_bytes)"
    )


def _start(start: StartingWeights) -> str:
    return f"It began with the weights {start.source} (digest {start.digest})."


def _target(target: PretrainingTarget) -> str:
    own = counted(len(target.own_classes), "class")
    more = f"; {own} that the source has not: {shortened(target.own_classes, most=5)}" if target.own_classes else ""
    return (
        f"Labels were learnt together with {counted(target.num_images, 'training image')} of {target.data_uri}, "
        f"{percent(target.batch_share)} of every batch, their loss by {target.weight:g} beside the source's by 1. "
        f"Shared classes: {shortened(target.shared_classes, most=5) or 'none'}{more}."
    )


def _regularizer(hyperparameters: Hyperparameters) -> list[str]:
    added = _REGULARIZERS.get(hyperparameters.regularizer)
    if added is None:
        return []
    scope = _SCOPES[hyperparameters.regularizer_scope]
    return [f"The loss of labels had {added} added, over {scope}, by {hyperparameters.regularizer_weight:g}."]
