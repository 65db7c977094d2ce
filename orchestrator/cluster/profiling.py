"""Measures every subset in parallel with Ray Data: a partial profile for each block, merged in block order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from orchestrator.cluster.failures import translated
from orchestrator.cluster.watchdog import Watchdog, watched
from orchestrator.cluster.workers import Workbench, use_threads
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.decoding import luminance_histogram
from orchestrator.data.identity import stable_fraction
from orchestrator.data.reader import PixelReader, blocks_of
from orchestrator.diversity.profiling import finish
from orchestrator.diversity.statistics import PartialProfile
from orchestrator.finetune.classifier import extract_features
from orchestrator.records import Profile

PROFILE_VERSION = 1
_MAX_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class ProfilePlan:
    """Say what is measured; `workbench` is needed for feature diversity alone."""

    measures: Sequence[str]
    split: str
    sample_per_subset: int | None
    min_images: int
    seed: int
    num_labels: int
    stall_timeout_s: float


def make_profile(
    samples: SampleTable,
    reader: PixelReader,
    workbench: Workbench | None,
    plan: ProfilePlan,
    *,
    fingerprint: str,
) -> Profile:
    """Measure the diversity of every subset; images are opened only for measures that need them."""
    started = time.perf_counter()
    positions = samples.where(split=None if plan.split == "all" else plan.split)
    rows = samples.table.take(pa.array(sampled(samples.table, positions, plan)))
    blocks = [
        block.append_column("key", pa.array([key] * block.num_rows))
        for key, block in enumerate(blocks_of(rows, _MAX_ROWS))
    ]
    measured = ray.data.from_arrow(blocks).map_batches(
        _Measure(tuple(plan.measures), reader, workbench), batch_size=None, batch_format="pyarrow", num_cpus=1
    )
    with (
        translated("the diversity pass"),
        Watchdog("the diversity pass", wanted={"CPU": 1}, stall_timeout_s=plan.stall_timeout_s) as watchdog,
    ):
        profile = finish(
            (row["partial"] for row in watched(measured.iter_rows(), watchdog)),
            num_labels=plan.num_labels,
            measures=plan.measures,
            split="all" if plan.split == "all" else "train",
            min_images=plan.min_images,
            seed=plan.seed,
        )
    return profile.model_copy(update={"fingerprint": fingerprint, "seconds": time.perf_counter() - started})


def sampled(table: pa.Table, positions: NDArray[np.int64], plan: ProfilePlan) -> NDArray[np.int64]:
    """Keep `sample_per_subset` positions of each subset: those whose identity hashes lowest, a uniform sample."""
    if plan.sample_per_subset is None:
        return positions
    chosen = table.select(["id", "subset"]).take(pa.array(positions))
    hashes = np.array([stable_fraction(identity, plan.seed) for identity in chosen.column("id").to_pylist()])
    subsets = np.asarray(chosen.column("subset").to_pylist())
    kept = []
    for subset in np.unique(subsets):
        members = np.flatnonzero(subsets == subset)
        kept.append(members[np.argsort(hashes[members], kind="stable")[: plan.sample_per_subset]])
    return positions[np.sort(np.concatenate(kept))] if kept else positions


@dataclass(frozen=True)
class _Measure:
    """Measure one block of catalogue rows in a worker."""

    measures: tuple[str, ...]
    reader: PixelReader
    workbench: Workbench | None

    def __call__(self, block: pa.Table) -> dict[str, list[PartialProfile]]:
        use_threads(1)
        partial = PartialProfile(key=block.column("key")[0].as_py())
        contents = self.reader.read_contents(block) if "pixel_entropy" in self.measures else None
        features = self._features(block) if "feature_diversity" in self.measures else None
        subsets = np.asarray(block.column("subset").to_pylist())
        for subset in np.unique(subsets):
            members = np.flatnonzero(subsets == subset)
            rows = block.take(pa.array(members))
            partial.add_labels(str(subset), rows.column("label").to_pylist())
            if contents is not None:
                histograms = np.stack([luminance_histogram(contents[index]) for index in members])
                partial.add_histograms(str(subset), histograms)
            if features is not None:
                partial.add_features(str(subset), features[members], rows.column("id").to_pylist())
        return {"partial": [partial]}

    def _features(self, block: pa.Table) -> NDArray[np.float32]:
        assert self.workbench is not None
        backbone = self.workbench.pretrained()
        return extract_features(backbone, self.workbench.backbone.spec, self.reader.read(block), device="cpu")
