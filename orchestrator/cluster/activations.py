"""Fills the activation store with Ray Data: one pass gives every wanted depth and view, and only what is missing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from torch import nn

from orchestrator.cluster.activation_index import NOT_STORED, NUMPY_TYPES, UNCACHED, ActivationIndex
from orchestrator.cluster.failures import translated
from orchestrator.cluster.passes import PassPlan, run_pass
from orchestrator.cluster.tasks import as_task
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.cluster.workers import Workbench, resolve_precision, worker_device
from orchestrator.config import AugmentConfig
from orchestrator.data.activation_keys import ActivationKey
from orchestrator.data.activations import ActivationStore, entry_bytes
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.identity import sample_keys
from orchestrator.data.reader import PixelReader
from orchestrator.errors import ConfigError
from orchestrator.finetune.contracts import Layout, StoredType
from orchestrator.finetune.prefix import layouts, prefix_rows
from orchestrator.finetune.views import vary

__all__ = ["ActivationIndex", "ActivationPlan", "StoredType", "build_activations"]

# Bounds what a task holds: the outputs of all depths for this many samples, a GiB for ResNet-50 at 224 pixels.
_MAX_ROWS = 128
_COLUMNS = ["id", "content", "split", "fragment", "pixel_row"]


@dataclass(frozen=True, kw_only=True)
class ActivationPlan:
    """Say what is kept and where: `depths` in order of worth, the first the worthiest, and each one's type.

    `uri` is a directory that several runs may share; beyond `max_bytes` what was used longest ago goes, and depths
    that do not fit are left out. `augment` and `seed` make the views of training samples, and with `all_views` of
    validation samples too, which folds train on. `expected_s` is what one CPU is expected to need for all of it.
    """

    uri: str
    max_bytes: int
    depths: tuple[int, ...]
    dtypes: dict[int, StoredType]
    augment: AugmentConfig
    seed: int
    use_gpu: bool
    stall_timeout_s: float
    expected_s: float = math.inf
    all_views: bool = False

    @property
    def num_views(self) -> int:
        """Count the fixed views of a training sample."""
        return max(1, self.augment.views)

    @property
    def store(self) -> ActivationStore:
        """Give the store that the pass fills."""
        return ActivationStore(uri=self.uri, max_bytes=self.max_bytes)

    @property
    def run(self) -> PassPlan:
        """Say how the pass is run."""
        return PassPlan(
            what="the activation pass",
            stall_timeout_s=self.stall_timeout_s,
            use_gpu=self.use_gpu,
            expected_s=lambda: self.expected_s,
        )


def build_activations(
    table: SampleTable, reader: PixelReader, workbench: Workbench, plan: ActivationPlan
) -> ActivationIndex:
    """Store the activations of all cached training and validation samples, computing only what is missing.

    What exists is found by listing; its bytes are checked where a task or a reader opens it. Without anything missing
    no pass is started. Raises ConfigError for augmentation that is drawn afresh every epoch, and what the pass raises.
    """
    started = time.perf_counter()
    _require_fixed_views(plan.augment)
    found_layouts, precision = _describe(workbench, plan)
    job = _Job(reader=reader, workbench=workbench, plan=plan, precision=precision)
    shards = [_Shard.of(table, positions, job) for positions in shard_positions(table)]
    kept = _fitting_depths(shards, found_layouts, plan)
    job = replace(job, plan=replace(plan, depths=kept))
    wanted = _sizes(shards, found_layouts, job.plan)
    present = plan.store.entries()
    missing = {name for name, size in wanted.items() if present.get(name) != size}
    # Marked before the pass: another run that evicts meanwhile takes what was used longer ago.
    plan.store.touch(wanted.keys() - missing)
    incomplete = [shard.rows for shard in shards if not missing.isdisjoint(shard.all_names(kept))]
    computed = sum(run_pass(incomplete, _Compute(job), plan.run))
    plan.store.evict(keep=wanted.keys())
    return ActivationIndex(
        store=plan.store,
        layouts={depth: found_layouts[depth] for depth in kept},
        dtypes={depth: plan.dtypes[depth] for depth in kept},
        entries={
            depth: tuple(tuple(shard.names[view].get(depth, "") for shard in shards) for view in range(plan.num_views))
            for depth in kept
        },
        **_places(table, shards, plan),
        computed=computed,
        reused=max(0, len(wanted) - computed),
        bytes=sum(wanted.values()),
        seconds=time.perf_counter() - started,
    )


def shard_positions(table: SampleTable) -> list[NDArray[np.int64]]:
    """Cut the cached samples for train and val into shards: of one fragment each, training samples first.

    Within a split they have the order of the cached pixels, which samples in other fragments do not change.
    """
    rows = table.table
    split = np.asarray(rows.column("split").to_pylist(), dtype=object)
    pixel_row = np.asarray(rows.column("pixel_row"))
    fragment = np.asarray(rows.column("fragment"))
    usable = np.asarray(rows.column("ok")) & (pixel_row >= 0) & ((split == "train") | (split == "val"))
    positions = np.flatnonzero(usable).astype(np.int64)
    is_validation = split[positions] == "val"
    # The last key sorts first.
    order = np.lexsort((pixel_row[positions], is_validation, pixel_row[positions] // _MAX_ROWS, fragment[positions]))
    positions = positions[order]
    piece = np.stack([fragment[positions], pixel_row[positions] // _MAX_ROWS])
    borders = np.flatnonzero((piece[:, 1:] != piece[:, :-1]).any(axis=0)) + 1
    return np.split(positions, borders) if len(positions) else []


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Hold what the driver and every task agree on."""

    reader: PixelReader
    workbench: Workbench
    plan: ActivationPlan
    precision: str

    def names(self, rows: pa.Table) -> list[dict[int, str]]:
        """Name the entries of a shard's rows by view and depth; no rows in a view have none."""
        contents, ids = (rows.column(name).to_pylist() for name in ("content", "id"))
        counts = [self.count(rows, view) for view in range(self.plan.num_views)]
        dtypes = {depth: self.plan.dtypes[depth] for depth in self.plan.depths}
        return [
            ActivationKey(
                contents=contents[:count],
                ids=ids[:count],
                spec=self.workbench.backbone.spec,
                weights=self.workbench.backbone.digest,
                precision=self.precision,
                view=view,
                augment=self.plan.augment,
                seed=self.plan.seed,
            ).names(dtypes)
            if count
            else {}
            for view, count in enumerate(counts)
        ]

    def count(self, rows: pa.Table, view: int) -> int:
        """Count the rows of a shard that a view shows: all the image itself, the training samples every other."""
        if view == 0 or self.plan.all_views:
            return int(rows.num_rows)
        return int(rows.column("split").to_pylist().count("train"))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shard:
    """Hold the samples of one shard, as positions in the table and as rows, and the names of its entries."""

    positions: NDArray[np.int64]
    rows: pa.Table
    counts: list[int]
    names: list[dict[int, str]]

    @classmethod
    def of(cls, table: SampleTable, positions: NDArray[np.int64], job: _Job) -> _Shard:
        rows = table.table.select(_COLUMNS).take(pa.array(positions))
        counts = [job.count(rows, view) for view in range(job.plan.num_views)]
        return cls(positions=positions, rows=rows, counts=counts, names=job.names(rows))

    def sizes(self, depth: int, layout: Layout, dtype: StoredType) -> dict[str, int]:
        """Give the bytes of the shard's entries at one depth by their names."""
        return {
            names[depth]: entry_bytes(count, math.prod(layout.shape), NUMPY_TYPES[dtype])
            for names, count in zip(self.names, self.counts, strict=True)
            if depth in names
        }

    def all_names(self, depths: tuple[int, ...]) -> list[str]:
        """Give the names of the shard's entries at these depths."""
        return [names[depth] for names in self.names for depth in depths if depth in names]


@dataclass(frozen=True)
class _Compute:
    """Store what is missing of one shard in a worker, and give the number of entries that were computed."""

    job: _Job

    def __call__(self, rows: pa.Table) -> int:
        job, store = self.job, self.job.plan.store
        missing = [{depth: name for depth, name in names.items() if not store.check(name)} for names in job.names(rows)]
        if any(missing):
            pixels = job.reader.read(rows)
            keys = sample_keys(rows.column("id").to_pylist())
            for view, names in enumerate(missing):
                if names:
                    count = job.count(rows, view)
                    shown = vary(pixels[:count], keys[:count], view, job.plan.augment, job.plan.seed)
                    self._store(names, shown)
        return sum(map(len, missing))

    def _store(self, names: dict[int, str], pixels: NDArray[np.uint8]) -> None:
        plan, workbench = self.job.plan, self.job.workbench
        settings = workbench.settings(worker_device(plan.use_gpu))
        outputs = prefix_rows(
            _stages(workbench, max(names), settings.device),
            pixels,
            sorted(names),
            workbench.backbone.spec,
            settings,
            {depth: plan.dtypes[depth] for depth in names},
        )
        for depth, name in names.items():
            plan.store.write(name, outputs[depth])


def _describe(workbench: Workbench, plan: ActivationPlan) -> tuple[dict[int, Layout], str]:
    """Give the layout of every depth, and the precision, which only the device that computes can tell."""
    if not plan.use_gpu:
        return _described(workbench, plan)
    run = plan.run
    with translated(run.what), Watchdog(run.what, wanted=run.wanted, stall_timeout_s=run.stall_timeout_s):
        described: tuple[dict[int, Layout], str] = ray.get(as_task(_described, run.wanted).remote(workbench, plan))
    return described


def _described(workbench: Workbench, plan: ActivationPlan) -> tuple[dict[int, Layout], str]:
    device = worker_device(plan.use_gpu)
    stages = _stages(workbench, max(plan.depths, default=0), device)
    settings = workbench.settings(device)
    found = layouts(stages, workbench.backbone.spec, settings, plan.depths)
    return found, resolve_precision(workbench.precision, device)


def _stages(workbench: Workbench, depth: int, device: str) -> nn.Sequential:
    return nn.Sequential(*workbench.pretrained().stages[:depth]).to(device).eval()


def _sizes(shards: Sequence[_Shard], found: Mapping[int, Layout], plan: ActivationPlan) -> dict[str, int]:
    """Give the bytes of every entry that the plan wants, by name."""
    return {
        name: size
        for depth in plan.depths
        for shard in shards
        for name, size in shard.sizes(depth, found[depth], plan.dtypes[depth]).items()
    }


def _fitting_depths(shards: Sequence[_Shard], found: Mapping[int, Layout], plan: ActivationPlan) -> tuple[int, ...]:
    """Drop depths from the end until what is left fits the store."""
    depths = plan.depths
    while depths and sum(_sizes(shards, found, replace(plan, depths=depths)).values()) > plan.max_bytes:
        depths = depths[:-1]
    return depths


def _places(table: SampleTable, shards: Sequence[_Shard], plan: ActivationPlan) -> dict[str, NDArray[Any]]:
    """Say for every sample of the table in which shard and row it is, and whether every view of it is stored."""
    split = np.asarray(table.table.column("split").to_pylist(), dtype=object)
    belongs = np.asarray(table.table.column("ok")) & ((split == "train") | (split == "val"))
    shard_of = np.where(belongs, UNCACHED, NOT_STORED).astype(np.int32)
    row_of = np.full(len(shard_of), -1, dtype=np.int32)
    for number, shard in enumerate(shards):
        shard_of[shard.positions] = number
        row_of[shard.positions] = np.arange(len(shard.positions), dtype=np.int32)
    return {"shard_of": shard_of, "row_of": row_of, "has_views": belongs & (plan.all_views | (split == "train"))}


def _require_fixed_views(augment: AugmentConfig) -> None:
    if augment.views == 0 and augment.varies:
        raise ConfigError(
            "augment.views must be at least 1 where activations are kept",
            value=augment.views,
            remedy="Set augment.views to the number of variants of a sample, or cache.activations to never.",
        )
