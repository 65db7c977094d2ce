"""Measures epochs on stored activations against epochs that run the frozen stages, and against what was predicted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bench_probe import probe
from command import note
from figures import Figure
from ours import experiment, our_ray
from protocol import BATCH_SIZE, NUM_STAGES, Protocol
from workplace import DOMAIN, Workplace

from orchestrator.cluster.activations import ActivationIndex, ActivationPlan, build_activations
from orchestrator.cluster.ingest import IngestPlan, pixel_reader, read_samples
from orchestrator.cluster.workers import Workbench, use_threads
from orchestrator.config import ExperimentConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.samples import CachedSamples
from orchestrator.finetune.contracts import Activations, TrainingSettings
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.records import Catalogue, Hyperparameters, PretrainedBackbone
from orchestrator.search.costs import DepthPlan, Workload, plan_cache

CACHE_FIGURES = ("cache_achieved_over_predicted", "cache_never_slower")


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Hold what all measurements share: the samples, the backbone, and the activations of every depth."""

    workbench: Workbench
    train: CachedSamples
    validation: CachedSamples
    num_classes: int
    positions: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]
    index: ActivationIndex

    def activations(self, depth: int) -> Activations:
        """Give what is stored at a depth."""
        return Activations(
            depth=depth,
            layout=self.index.layouts[depth],
            dtype=self.index.dtypes[depth],
            train=self.index.rows(self.positions["train"], depth),
            validation=self.index.rows(self.positions["val"], depth),
        )


@dataclass(frozen=True, kw_only=True)
class DepthTimes:
    """Hold one depth's median seconds of an epoch, on stored activations and from pixels, beside the prediction."""

    plan: DepthPlan
    cached_s: float
    uncached_s: float

    @property
    def predicted_s(self) -> float:
        """Give the predicted seconds on stored activations, scaled to what the machine took from pixels.

        Dividing it by `cached_s` gives the achieved speed-up over the predicted one.
        """
        return self.uncached_s * self.plan.epoch_s / self.plan.uncached_epoch_s


def measure_cache(place: Workplace) -> Iterator[Figure]:
    """Time every depth whose activations the cost rule keeps; what it leaves alone runs as without a cache.

    Both figures are of the worst depth. Building is not in them: the searches that are timed elsewhere pay for it.
    """
    config = experiment(place.domain(DOMAIN), place.weights, place.fresh("cache"))
    ground = _ground(place, config, place.prepared(DOMAIN))
    use_threads(place.threads)
    plans = _plans(place, ground)
    times = [_time_depth(ground, plan, place.protocol) for plan in plans if plan.source == "activations"]
    for plan in plans:
        note(f"depth {plan.depth}: from {plan.source}, predicted {plan.epoch_s:.3f} of {plan.uncached_epoch_s:.3f} s")
    for found in times:
        note(f"depth {found.plan.depth}: {found.cached_s:.3f} s an epoch, {found.uncached_s:.3f} s from pixels")
    if not times:
        raise RuntimeError("the cost rule must keep the activations of a depth, or there is nothing to compare")
    worst = min(times, key=lambda found: found.predicted_s / found.cached_s)
    yield Figure(benchmark=CACHE_FIGURES[0], ours=worst.cached_s, peer=worst.predicted_s, aim=0.7, unit="s/epoch")
    slowest = min(times, key=lambda found: found.uncached_s / found.cached_s)
    yield Figure(benchmark=CACHE_FIGURES[1], ours=slowest.cached_s, peer=slowest.uncached_s, aim=0.97, unit="s/epoch")


def _ground(place: Workplace, config: ExperimentConfig, run: Path) -> Ground:
    catalogue = Catalogue.from_json((run / "catalogue.json").read_bytes(), source="catalogue.json")
    backbone = PretrainedBackbone.from_json((run / "backbone.json").read_bytes(), source="backbone.json")
    workbench = Workbench.of(config, backbone, str(run))
    ingest = IngestPlan(
        data=config.data,
        image_size=config.backbone.image_size,
        resize=config.backbone.resize,
        seed=config.seed,
        run_uri=str(run),
        folder="catalogue",
        stall_timeout_s=config.cluster.stall_timeout_s,
    )
    table, reader = read_samples(str(run), catalogue), pixel_reader(ingest, catalogue)
    depths = tuple(range(NUM_STAGES, 0, -1))
    plan = ActivationPlan(
        uri=str(place.fresh("activations")),
        max_bytes=config.cache.max_bytes,
        depths=depths,
        dtypes=dict.fromkeys(depths, config.cache.dtype),
        augment=config.augment,
        seed=config.seed,
        use_gpu=False,
        stall_timeout_s=config.cluster.stall_timeout_s,
    )
    with our_ray(place.threads):
        index = build_activations(table, reader, workbench, plan)
    positions = {split: table.where(split=split) for split in ("train", "val")}
    train, validation = (
        _samples(table, positions[split], reader.pixels_uri, catalogue.labels) for split in ("train", "val")
    )
    return Ground(
        workbench=workbench,
        train=train,
        validation=validation,
        num_classes=len(catalogue.labels),
        positions=positions,
        index=index,
    )


def _samples(
    table: SampleTable,
    positions: np.ndarray[tuple[int], np.dtype[np.int64]],
    pixels_uri: str | None,
    labels: list[str],
) -> CachedSamples:
    return CachedSamples.of(table, positions, pixels_uri, labels)


def _plans(place: Workplace, ground: Ground) -> list[DepthPlan]:
    """Predict from a probe what a whole search over every depth would make of the cache."""
    protocol = place.protocol
    classifier = ground.workbench.classifier(ground.num_classes)
    figures = probe(classifier, ground.workbench, ground.train, place.fresh("probe"))
    epochs = protocol.cache_trials * statistics.mean(protocol.epochs) / (NUM_STAGES + 1)
    workload = Workload(
        num_train=len(ground.train),
        num_validation=len(ground.validation),
        views=1,
        epochs=dict.fromkeys(range(NUM_STAGES + 1), epochs),
    )
    return plan_cache(figures, workload, max_bytes=ground.index.store.max_bytes)


def _time_depth(ground: Ground, plan: DepthPlan, protocol: Protocol) -> DepthTimes:
    cached, uncached = [], []
    activations = ground.activations(plan.depth)
    settings = ground.workbench.settings("cpu")
    for _ in range(protocol.cache_repeats):
        cached.append(_epoch_s(ground, plan.depth, settings, activations, protocol.cache_epochs))
        # Nothing may be remembered on this side: the frozen stages run in every epoch.
        bare = replace(settings, activation_bytes=0)
        uncached.append(_epoch_s(ground, plan.depth, bare, None, protocol.cache_epochs))
    return DepthTimes(plan=plan, cached_s=statistics.median(cached), uncached_s=statistics.median(uncached))


def _epoch_s(
    ground: Ground, depth: int, settings: TrainingSettings, activations: Activations | None, epochs: int
) -> float:
    """Give the mean seconds of an epoch after the first one, which opens files and warms up."""
    ends: list[float] = []

    def on_epoch(end: EpochEnd) -> None:
        ends.append(time.perf_counter())

    recipe = Hyperparameters(
        freeze_depth=depth,
        learning_rate=1e-3,
        epochs=epochs + 1,
        batch_size=BATCH_SIZE,
        optimizer="adam",
        weight_decay=0.0,
    )
    result = fine_tune(
        ground.workbench.classifier(ground.num_classes),
        ground.workbench.backbone.spec,
        ground.train,
        ground.validation,
        recipe,
        settings,
        on_epoch=on_epoch,
        activations=activations,
    )
    wanted = "pixels" if activations is None else "activations"
    if result.inputs != wanted:
        raise RuntimeError(f"an epoch must be fed from {wanted}, got {result.inputs}: {result.note}")
    return (ends[-1] - ends[0]) / epochs
