"""Finds what an epoch from scratch costs, measured in epochs of the training that it shall cost as much as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.workers import Workbench
from orchestrator.finetune.companions import ChosenSamples, Companion
from orchestrator.finetune.contracts import Samples
from orchestrator.finetune.label_counts import NO_LABEL
from orchestrator.finetune.rehearsal import (
    Rehearsal,
    SampleStream,
    rehearse_in_turn,
    relative_cost,
    scaled_companion,
    spread,
)
from orchestrator.records import Hyperparameters
from orchestrator.search.arms import trains_alike

_LEAST_ROWS = 128


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Hold a group's own training: its recipe, the `epochs` that it ran, and what it learnt from.

    That is `num_train` images, more than are cached where it streamed them, and a companion, of which it may have
    streamed more than is held too.
    """

    hyperparameters: Hyperparameters
    epochs: int
    num_train: int
    companion: Companion | None
    streams_source: bool = False


def measure_epoch_cost(
    hyperparameters: Hyperparameters,
    samples: GroupSamples,
    rival: Rival,
    workbench: Workbench,
    device: str,
    *,
    on_round: Callable[[], None] = lambda: None,
) -> float:
    """Give what an epoch from scratch on cached samples takes over an average one of its rival on all of its images.

    Where both train the same network from the same depth, that is the share of the images which are cached. Elsewhere
    both are tried in turn, by this process, on the same few samples; `on_round` is called after each turn.
    """
    has_one_pass = rival.hyperparameters.has_one_pass(workbench.backbone.num_stages)
    is_beside = rival.companion is not None and not rival.companion.is_idle(has_one_pass=has_one_pass)
    companion = rival.companion if is_beside else None
    share = len(samples.train) / rival.num_train
    if companion is None and trains_alike(hyperparameters, rival.hyperparameters):
        return share
    num_rows = min(len(samples.train), max(_LEAST_ROWS, 2 * rival.hyperparameters.batch_size))
    scratch = _scratch(hyperparameters, samples, num_rows, workbench, device)
    own = _own(replace(rival, companion=companion), samples, num_rows, workbench, device)
    return share * relative_cost(*rehearse_in_turn(scratch.times, own.times, on_round=on_round), epochs=rival.epochs)


def _scratch(
    hyperparameters: Hyperparameters, samples: GroupSamples, num_rows: int, workbench: Workbench, device: str
) -> Rehearsal:
    share = num_rows / len(samples.train)
    return Rehearsal(
        new_classifier=partial(workbench.classifier, samples.class_counts, from_scratch=True),
        spec=workbench.backbone.spec,
        train=spread(samples.train, num_rows),
        validation=_validation(samples, share),
        hyperparameters=samples.weighted(hyperparameters),
        settings=workbench.settings(device, from_scratch=True),
    )


def _own(rival: Rival, samples: GroupSamples, num_rows: int, workbench: Workbench, device: str) -> Rehearsal:
    """Try the rival as it was: beside as large a part of its companion, and with memory for as large a part.

    What is streamed is taken from what is held: to open and decode images is the work of other processes.
    """
    share, companion = num_rows / rival.num_train, rival.companion
    if companion is not None and rival.hyperparameters.has_one_pass(workbench.backbone.num_stages):
        # A single pass looks at so many however few target samples there are: it is these that the share is of.
        companion = replace(companion, samples=spread(companion.samples, companion.looked_at(rival.num_train)))
    scaled = None if companion is None else scaled_companion(companion, share, is_streamed=rival.streams_source)
    train = spread(samples.train, num_rows)
    is_streamed = rival.num_train > len(samples.train)
    settings = workbench.settings(device)
    return Rehearsal(
        new_classifier=partial(workbench.classifier, replace(samples, companion=companion).output_counts),
        spec=workbench.backbone.spec,
        train=SampleStream(samples=train, batch_size=rival.hyperparameters.batch_size) if is_streamed else train,
        validation=_validation(samples, share),
        hyperparameters=samples.weighted(rival.hyperparameters),
        settings=replace(settings, activation_bytes=int(share * settings.activation_bytes)),
        companion=scaled,
    )


def _validation(samples: GroupSamples, share: float) -> Samples:
    """Choose a share of the validation samples, of several heads among those that one judges."""
    found: Samples = samples.validation
    if found.labels.ndim == 2 and samples.tasks:
        judged = np.flatnonzero((found.labels != NO_LABEL).any(axis=1))
        found = ChosenSamples(samples=found, positions=judged) if len(judged) else found
    return spread(found, round(share * len(samples.validation)))
