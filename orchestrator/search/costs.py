"""Predicts what training costs at each freeze depth, and decides what of the frozen stages is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.records import CompiledCost, CostFigures

Source = Literal["activations", "pixels", "images"]

# Figures from a probe of a second are good to about a tenth: a saving below that may be none.
LEAST_SAVING = 0.05

# Assumed: compiling halves a training step at best, and seldom takes less than this. Whether it pays is measured then.
MOST_COMPILED_SAVING = 0.5
LEAST_COMPILE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Count the samples of a search and, for each freeze depth, the epochs that its trials will last together."""

    num_train: int
    num_validation: int
    views: int
    epochs: Mapping[int, float]
    pixels_are_cached: bool = True
    validation_views: int = 1

    @property
    def num_rows(self) -> int:
        """Count the rows that a cached depth stores: the views of every training and every validation sample."""
        return self.num_train * max(1, self.views) + self.num_validation * max(1, self.validation_views)


@dataclass(frozen=True, kw_only=True)
class DepthPlan:
    """Say where trials of one freeze depth take their inputs from, and what that is predicted to cost.

    `epoch_s` is one epoch on one worker, `uncached_epoch_s` the same without cached activations. `build_s` is what
    storing this depth adds to the pass over the samples; `saving_s` what it saves over all epochs, build deducted;
    negative where a cache would not pay.
    """

    depth: int
    source: Source
    epoch_s: float
    uncached_epoch_s: float
    build_s: float
    stored_bytes: int
    saving_s: float


def plan_cache(figures: CostFigures, workload: Workload, *, max_bytes: int, always: bool = False) -> list[DepthPlan]:
    """Decide for each freeze depth, 0 first, whether its activations are kept.

    They are when that saves at least `LEAST_SAVING` of what the trials of the depth take without, the build
    included, and they fit into `max_bytes` beside those that save more a byte. Shallow activations are larger than
    the pixels and hardly pay. Without views augmentation is drawn afresh, and nothing beyond the pixels can be kept.
    `always` keeps what fits whether it pays or not.
    """
    fallback: Source = "pixels" if workload.pixels_are_cached else "images"
    plans = [_plan_depth(figures, workload, depth, fallback) for depth in range(len(figures.forward_s) + 1)]
    room = max_bytes
    kept = set()
    tried = [plan for plan in plans if workload.views and plan.depth > 0 and workload.epochs.get(plan.depth, 0.0) > 0]
    worth = tried if always else [plan for plan in tried if _pays(plan, workload)]
    for plan in sorted(worth, key=lambda plan: plan.saving_s / max(1, plan.stored_bytes), reverse=True):
        if plan.stored_bytes <= room:
            room -= plan.stored_bytes
            kept.add(plan.depth)
    return [plan if plan.depth in kept else _without_cache(plan, fallback) for plan in plans]


def _plan_depth(figures: CostFigures, workload: Workload, depth: int, fallback: Source) -> DepthPlan:
    cached, uncached = (_epoch_s(figures, workload, depth, source) for source in ("activations", fallback))
    build_s = _build_s(figures, workload, depth, fallback)
    return DepthPlan(
        depth=depth,
        source="activations",
        epoch_s=cached,
        uncached_epoch_s=uncached,
        build_s=build_s,
        stored_bytes=workload.num_rows * figures.activation_bytes[depth],
        saving_s=workload.epochs.get(depth, 0.0) * (uncached - cached) - build_s,
    )


def _epoch_s(figures: CostFigures, workload: Workload, depth: int, source: Source) -> float:
    fetch = _fetch_s(figures, depth, source)
    train = workload.num_train * (fetch + figures.train_s[depth])
    return train + workload.num_validation * (fetch + figures.validate_s[depth])


def _fetch_s(figures: CostFigures, depth: int, source: Source) -> float:
    """Give the seconds until the suffix has its input for one sample."""
    prefix_s = sum(figures.forward_s[:depth])
    match source:
        case "activations":
            return figures.activation_bytes[depth] / figures.read_bytes_per_s
        case "pixels":
            return figures.read_pixels_s + prefix_s
        case "images":
            return figures.decode_s + prefix_s


def _build_s(figures: CostFigures, workload: Workload, depth: int, fallback: Source) -> float:
    """Charge the whole pass to this depth: cheaper when the pass serves others too."""
    row = _fetch_s(figures, depth, fallback) + figures.activation_bytes[depth] / figures.write_bytes_per_s
    return workload.num_rows * row


def _pays(plan: DepthPlan, workload: Workload) -> bool:
    return plan.saving_s >= LEAST_SAVING * workload.epochs[plan.depth] * plan.uncached_epoch_s


def _without_cache(plan: DepthPlan, fallback: Source) -> DepthPlan:
    return DepthPlan(
        depth=plan.depth,
        source=fallback,
        epoch_s=plan.uncached_epoch_s,
        uncached_epoch_s=plan.uncached_epoch_s,
        build_s=0.0,
        stored_bytes=0,
        saving_s=min(0.0, plan.saving_s),
    )


@dataclass(frozen=True, kw_only=True)
class SourceLoad:
    """Count the source images of a training: how many there are, and how many draws of them it makes in all.

    Their outputs of frozen stages are kept where they fit into `most_bytes`.
    """

    num_images: int
    num_draws: int
    views: int
    most_bytes: int


def source_seconds(figures: CostFigures, load: SourceLoad, depth: int) -> float:
    """Give the seconds that a source adds to a training at one freeze depth.

    Every draw is a part of a training step. The frozen stages see each image that is drawn once, in every view, and
    each draw where their outputs are not kept.
    """
    rows = min(load.num_draws, load.num_images) * load.views
    is_kept = 0 < rows * figures.activation_bytes[depth] <= load.most_bytes
    passed = rows if is_kept else load.num_draws
    return load.num_draws * figures.train_s[depth] + passed * _fetch_s(figures, depth, "pixels")


def worth_compiling(figures: CostFigures, depths: Sequence[int], *, trained_rows: float) -> list[int]:
    """Name the depths at which a trial that trains on `trained_rows` samples might gain from torch.compile.

    Finding out takes as long as compiling: it is only done where the greatest gain to be hoped for would pay for it.
    """
    hoped = {depth: trained_rows * figures.train_s[depth] * MOST_COMPILED_SAVING for depth in depths}
    return [depth for depth in depths if hoped[depth] > LEAST_COMPILE_S]


def compile_what_pays(
    figures: CostFigures, measured: Mapping[int, CompiledCost], *, trained_rows: float
) -> tuple[CostFigures, frozenset[int]]:
    """Decide at which depths trials are compiled; gives the figures with what a step then takes, and the depths.

    A trial of `trained_rows` samples over all its epochs must gain more than compiling took: each is charged as if it
    compiled anew, which holds for the first of every process.
    """
    train_s = list(figures.train_s)
    chosen = set()
    for depth, cost in measured.items():
        charged = cost.train_s + cost.compile_s / max(1.0, trained_rows)
        if charged < (1.0 - LEAST_SAVING) * figures.train_s[depth]:
            train_s[depth] = charged
            chosen.add(depth)
    return figures.model_copy(update={"train_s": tuple(train_s)}), frozenset(chosen)


def expected_epochs(depths: Mapping[int, float], *, num_trials: int, mean_epochs: float) -> dict[int, float]:
    """Give the epochs that trials of each freeze depth are expected to last together.

    `depths` has the share of trials at each depth. Trials that are stopped early last less: the estimate is high,
    and a cache that pays only at the last moment would not; the rule's margin covers that.
    """
    return {depth: share * num_trials * mean_epochs for depth, share in depths.items()}
