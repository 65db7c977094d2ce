"""Predicts what training costs at each freeze depth, and decides what of the frozen stages is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Source = Literal["activations", "pixels", "images"]

# Figures from a probe of a second are good to about a tenth: a saving below that may be none.
LEAST_SAVING = 0.05


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Hold what a probe measured on one worker: seconds and bytes for one sample.

    `forward_s` has an entry for each stage: a frozen forward pass. `train_s` and `validate_s` have one for each
    freeze depth from 0 to the number of stages: a training step of the suffix, and its forward pass.
    `activation_bytes` likewise: what a sample's activations take at that depth; depth 0 has none. Rates are in
    bytes a second. `decode_s` is decoding an encoded image; `read_pixels_s` taking a decoded one from the cache.
    """

    decode_s: float
    read_pixels_s: float
    forward_s: Sequence[float]
    train_s: Sequence[float]
    validate_s: Sequence[float]
    activation_bytes: Sequence[int]
    read_bytes_per_s: float
    write_bytes_per_s: float

    @property
    def num_stages(self) -> int:
        """Give the deepest freeze depth."""
        return len(self.forward_s)

    def prefix_s(self, depth: int) -> float:
        """Give the seconds of the frozen stages for one sample."""
        return sum(self.forward_s[:depth])

    def fetch_s(self, depth: int, source: Source) -> float:
        """Give the seconds until the suffix has its input for one sample."""
        match source:
            case "activations":
                return self.activation_bytes[depth] / self.read_bytes_per_s
            case "pixels":
                return self.read_pixels_s + self.prefix_s(depth)
            case "images":
                return self.decode_s + self.prefix_s(depth)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Count the samples of a search and, for each freeze depth, the epochs that its trials will last together."""

    num_train: int
    num_validation: int
    views: int
    epochs: Mapping[int, float]
    pixels_are_cached: bool = True

    @property
    def num_rows(self) -> int:
        """Count the rows that a cached depth stores: every view of every training sample, and the validation's."""
        return self.num_train * max(1, self.views) + self.num_validation


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


def plan_cache(figures: Figures, workload: Workload, *, max_bytes: int) -> list[DepthPlan]:
    """Decide for each freeze depth, 0 first, whether its activations are kept.

    They are when that saves at least `LEAST_SAVING` of what the trials of the depth take without, the build
    included, and they fit into `max_bytes` beside those that save more a byte. Shallow activations are larger than
    the pixels and hardly pay. Without views augmentation is drawn afresh, and nothing beyond the pixels can be kept.
    """
    fallback: Source = "pixels" if workload.pixels_are_cached else "images"
    plans = [_plan_depth(figures, workload, depth, fallback) for depth in range(figures.num_stages + 1)]
    room = max_bytes
    kept = set()
    worth = [plan for plan in plans if workload.views and _pays(plan, workload)]
    for plan in sorted(worth, key=lambda plan: plan.saving_s / max(1, plan.stored_bytes), reverse=True):
        if plan.stored_bytes <= room:
            room -= plan.stored_bytes
            kept.add(plan.depth)
    return [plan if plan.depth in kept else _without_cache(plan, fallback) for plan in plans]


def _plan_depth(figures: Figures, workload: Workload, depth: int, fallback: Source) -> DepthPlan:
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


def _epoch_s(figures: Figures, workload: Workload, depth: int, source: Source) -> float:
    fetch = figures.fetch_s(depth, source)
    train = workload.num_train * (fetch + figures.train_s[depth])
    return train + workload.num_validation * (fetch + figures.validate_s[depth])


def _build_s(figures: Figures, workload: Workload, depth: int, fallback: Source) -> float:
    """Charge the whole pass to this depth: cheaper when the pass serves others too."""
    row = figures.fetch_s(depth, fallback) + figures.activation_bytes[depth] / figures.write_bytes_per_s
    return workload.num_rows * row


def _pays(plan: DepthPlan, workload: Workload) -> bool:
    epochs = workload.epochs.get(plan.depth, 0.0)
    return plan.depth > 0 and epochs > 0 and plan.saving_s >= LEAST_SAVING * epochs * plan.uncached_epoch_s


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
