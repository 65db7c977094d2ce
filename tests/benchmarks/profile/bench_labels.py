"""Measures label entropy straight from many shards against pyarrow's own aggregation of the same columns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from command import note
from figures import Figure
from local_ray import local_ray
from sizes import Place, Sizes

from orchestrator.cluster.profiling import ProfilePlan, make_label_profile
from orchestrator.config import DataConfig
from orchestrator.diversity.profiling import ProfileSettings

ALLOWED_FACTOR, ALLOWED_S = 2.0, 5.0


def measure_labels(place: Place) -> Iterator[Figure]:
    """Count every subset's labels; ours has to read, count, merge and measure in twice the peer's time and 5 s.

    The peer counts and measures nothing. Files are in the page cache for both.
    """
    data = _write(place.fresh("labels"), place.sizes)
    ours, peer = [], []
    for _ in range(place.sizes.repeats):
        seconds, counted = _pyarrow(data)
        peer.append(ALLOWED_FACTOR * seconds + ALLOWED_S)
        with local_ray(num_cpus=place.cores, environment={}):
            ours.append(_ours(data, counted))
        note(f"labels: ours {ours[-1]:.2f} s, pyarrow {seconds:.2f} s for {counted.num_rows:,} pairs")
    yield Figure.of_medians("label_entropy_10m_rows", ours=ours, peer=peer, aim=1.0, unit="s")


def _write(directory: Path, sizes: Sizes) -> Path:
    """Write shards whose rows are of random subsets, each with ten labels of its own among a thousand."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    for shard in range(sizes.label_shards):
        subsets = rng.integers(0, sizes.label_subsets, size=sizes.rows_per_shard)
        labels = (subsets * 7 + rng.integers(0, 10, size=sizes.rows_per_shard)) % 1000
        table = pa.table(
            {
                "image": pa.array([b"not opened"] * sizes.rows_per_shard),
                "label": pa.DictionaryArray.from_arrays(labels, [f"class-{i}" for i in range(1000)]).cast(pa.string()),
                "subset": pa.DictionaryArray.from_arrays(
                    subsets, [f"site-{i}" for i in range(sizes.label_subsets)]
                ).cast(pa.string()),
            }
        )
        pq.write_table(table, directory / f"part-{shard:05}.parquet")
    return directory


def _pyarrow(data: Path) -> tuple[float, pa.Table]:
    started = time.perf_counter()
    table = ds.dataset(data).to_table(columns=["subset", "label"])
    counted = table.group_by(["subset", "label"]).aggregate([([], "count_all")])
    return time.perf_counter() - started, counted


def _ours(data: Path, expected: pa.Table) -> float:
    settings = ProfileSettings(num_labels=0, measures=["label_entropy"], split="all", min_images=0, seed=0)
    plan = ProfilePlan(settings=settings, sample_per_subset=None, stall_timeout_s=300)
    started = time.perf_counter()
    profile, _ = make_label_profile(DataConfig(uri=str(data), image="image", label="label", subset="subset"), plan)
    seconds = time.perf_counter() - started
    found = sum(len(subset.label_counts) for subset in profile.subsets)
    total = sum(subset.num_images for subset in profile.subsets)
    if (found, total) != (expected.num_rows, sum(expected.column("count_all").to_pylist())):
        raise RuntimeError("both sides must count the same")
    return seconds
