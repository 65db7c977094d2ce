"""Makes the catalogue with Ray Data: one streamed pass that identifies, verifies and caches every sample."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import ray
from pyarrow import compute as pc

from orchestrator import storage
from orchestrator.cluster.failures import translated
from orchestrator.cluster.progress import Progress
from orchestrator.cluster.watchdog import Watchdog, watched
from orchestrator.config import DataConfig, LabelNeed
from orchestrator.data.catalogue import SampleTable, assemble, bad_rows, data_fingerprint, examine, summarise
from orchestrator.data.duplicates import deduplicate
from orchestrator.data.pixels import write_pixels
from orchestrator.data.reader import PixelReader, read_fragments, write_fragments
from orchestrator.data.sources import Field, Fragment, list_fragments, read_fragment
from orchestrator.data.text_columns import read_tasks
from orchestrator.errors import BadFractionError, DataError, ResourceError
from orchestrator.records import Catalogue

CATALOGUE_VERSION = 4

_TABLE = "catalogue.parquet"
_QUARANTINE = "quarantine.parquet"
_FRAGMENTS = "fragments.json"
_PIXELS = "pixels"


@dataclass(frozen=True, kw_only=True)
class IngestPlan:
    """Say what the pass reads and where its results go.

    `folder` is below the run directory; in it every catalogue has a folder named by its fingerprint, so that a pass
    that is cut short leaves an older catalogue as it was. `labels` says whether every sample must have one, or some may
    have none, or the data need not name them at all. `with_looks` hashes the looks of images whose own near copies are
    not looked for: others may be copies of them.
    """

    data: DataConfig
    image_size: int
    resize: Literal["crop", "squash"]
    seed: int
    run_uri: str
    folder: str
    stall_timeout_s: float
    needs_subset: bool = True
    labels: LabelNeed = "every"
    with_looks: bool = False

    @property
    def required(self) -> tuple[Field, ...]:
        """Give the fields that the data must have: images only where they are opened."""
        fields: tuple[Field, ...] = ("subset",) if self.needs_subset else ()
        if self.labels != "none":
            fields = ("label", *fields)
        return ("image", *fields) if self.data.verify == "decode" else fields


def make_catalogue(plan: IngestPlan, *, fingerprint: str, say: Callable[[str], None] = lambda line: None) -> Catalogue:
    """Read every sample once; write the table, the quarantine and the cache of decoded pixels.

    `say` receives lines about the progress. Raises DataError when nothing is usable, BadFractionError when more than
    `max_bad_fraction` of the rows are not.
    """
    started = time.perf_counter()
    fragments = list_fragments(plan.data, required=plan.required)
    folder = f"{plan.folder}/{fingerprint}"
    folder_uri = storage.join(plan.run_uri, folder)
    progress = Progress(plan.folder, say=say, total=sum(fragment.num_rows for fragment in fragments))
    table = assemble(list(progress.follow(_examined(fragments, plan, folder_uri), _count)))
    table, copies = deduplicate(table, plan.data, plan.seed)
    quarantine = bad_rows(table)
    storage.write_table(storage.join(folder_uri, _QUARANTINE), quarantine)
    _require_usable(table, quarantine, plan, folder)
    storage.write_table(storage.join(folder_uri, _TABLE), table)
    return Catalogue(
        fingerprint=fingerprint,
        table=f"{folder}/{_TABLE}",
        quarantine=f"{folder}/{_QUARANTINE}",
        pixels=f"{folder}/{_PIXELS}" if plan.data.verify == "decode" else None,
        image_size=plan.image_size,
        data_fingerprint=_data_fingerprint(table, plan),
        multi_label=plan.data.is_multi_label,
        seconds=time.perf_counter() - started,
        deduplicate=plan.data.deduplicate,
        **copies,
        **summarise(table, multi_label=plan.data.is_multi_label),
    )


def read_samples(run_uri: str, catalogue: Catalogue) -> SampleTable:
    """Read the table of samples that a catalogue describes."""
    table = storage.read_table(storage.join(run_uri, catalogue.table))
    return SampleTable(table, multi_label=catalogue.multi_label)


def _data_fingerprint(table: pa.Table, plan: IngestPlan) -> str:
    found = data_fingerprint(table)
    # One label each may be a class or a set of one: what is measured of the samples differs.
    return storage.digest("label sets", found) if plan.data.is_multi_label else found


def pixel_reader(plan: IngestPlan, catalogue: Catalogue) -> PixelReader:
    """Give the reader of a catalogue's pixels."""
    return PixelReader(
        data=plan.data,
        image_size=plan.image_size,
        resize=plan.resize,
        pixels_uri=None if catalogue.pixels is None else storage.join(plan.run_uri, catalogue.pixels),
        fragments_uri=storage.join(plan.run_uri, plan.folder, catalogue.fingerprint, _FRAGMENTS),
    )


@dataclass(frozen=True)
class _Examine:
    """Examine the samples of one fragment in a worker, and put their pixels into the cache."""

    plan: IngestPlan
    folder_uri: str
    cache_fraction: float

    def __call__(self, batch: Any) -> Iterator[pa.Table]:
        for key in batch["fragment"]:
            yield self._examine(read_fragments(storage.join(self.folder_uri, _FRAGMENTS))[int(key)])

    def _examine(self, fragment: Fragment) -> pa.Table:
        plan = self.plan
        decode = plan.data.verify == "decode"
        rows, pixels = examine(
            read_fragment(fragment, plan.data, with_image=decode),
            plan.data,
            fragment.key,
            plan.image_size,
            plan.resize,
            plan.seed,
            self.cache_fraction,
            read_tasks(fragment, plan.data),
            needs_label=plan.labels == "every" and not plan.data.is_multi_label,
            with_looks=plan.with_looks,
        )
        if len(pixels):
            write_pixels(storage.join(self.folder_uri, _PIXELS), fragment.key, pixels)
        return rows


def _examined(fragments: list[Fragment], plan: IngestPlan, folder_uri: str) -> Iterator[pa.Table]:
    write_fragments(storage.join(folder_uri, _FRAGMENTS), fragments)
    fraction = _cache_fraction(sum(fragment.num_rows for fragment in fragments), plan)
    keys = [{"fragment": fragment.key} for fragment in fragments]
    examined = ray.data.from_items(keys, override_num_blocks=len(keys)).map_batches(
        _Examine(plan, folder_uri, fraction), batch_size=1, num_cpus=1
    )
    with (
        translated("the catalogue pass"),
        Watchdog("the catalogue pass", wanted={"CPU": 1}, stall_timeout_s=plan.stall_timeout_s) as watchdog,
    ):
        yield from watched(examined.iter_batches(batch_size=None, batch_format="pyarrow"), watchdog)


def _count(examined: pa.Table) -> tuple[int, int]:
    return examined.num_rows, int(pc.sum(pc.invert(examined.column("ok"))).as_py() or 0)


def _cache_fraction(num_rows: int, plan: IngestPlan) -> float:
    """Give the share of samples whose pixels fit the cache. Raises ResourceError when the disk is too small."""
    if plan.data.verify == "none":
        return 0.0
    image_bytes = plan.image_size * plan.image_size * 3
    fraction = min(1.0, plan.data.max_cache_bytes / max(1, num_rows * image_bytes))
    _require_disk(int(num_rows * image_bytes * fraction), plan)
    return fraction


def _require_disk(wanted: int, plan: IngestPlan) -> None:
    if not storage.is_local(plan.run_uri):
        return
    directory = storage.local_path(plan.run_uri)
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if wanted > free:
        raise ResourceError(
            f"the cache of decoded pixels must fit the disk: wanted {wanted / 2**30:.1f} GiB",
            value=f"{free / 2**30:.1f} GiB free at {plan.run_uri}",
            remedy="Lower data.max_cache_bytes or backbone.image_size, or move storage_path.",
        )


def _require_usable(table: pa.Table, quarantine: pa.Table, plan: IngestPlan, folder: str) -> None:
    if table.num_rows == quarantine.num_rows:
        reasons = quarantine.column("reason").to_pylist()
        raise DataError(
            "the data must hold at least one usable sample",
            value=f"{quarantine.num_rows} bad rows in {plan.data.uri}",
            remedy=f"The first reason: {reasons[0]}." if reasons else "Check data.uri and data.format.",
        )
    share = quarantine.num_rows / table.num_rows
    if share > plan.data.max_bad_fraction:
        first = quarantine.slice(0, 1).to_pylist()[0]
        raise BadFractionError(
            f"at most data.max_bad_fraction = {plan.data.max_bad_fraction:g} of the rows may be bad",
            value=f"{quarantine.num_rows} of {table.num_rows} ({share:.2%})",
            remedy=f"See {folder}/{_QUARANTINE} in the run directory; the first: "
            f"{first['file']} row {first['row']}: {first['reason']}.",
        )
