"""Prepares one domain for both sides: a Parquet file with a column of splits, and the catalogue's pixels as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from protocol import SHARE_OF_TEST, SHARE_OF_VALIDATION, PhotoTask

from orchestrator import storage
from orchestrator.cluster.ingest import read_samples
from orchestrator.config import SplitFractions
from orchestrator.data.identity import assign_split
from orchestrator.data.samples import CachedSamples
from orchestrator.records import Catalogue


def write_domain(data: Path, domain: str, directory: Path, *, max_images: int | None) -> Path:
    """Write the shards of one domain with a column `split`, so that the search's seed does not move the splits."""
    shards = sorted(data.glob(f"{domain}-*.parquet"))
    if not shards:
        raise FileNotFoundError(f"there are no shards {domain}-*.parquet in {data}")
    table = pa.concat_tables([pq.read_table(shard) for shard in shards])
    # The shards are sorted by class: a few images from the front would have one label.
    order = np.random.default_rng(0).permutation(table.num_rows)[:max_images]
    table = table.take(pa.array(order))
    fractions = SplitFractions(val=SHARE_OF_VALIDATION, test=SHARE_OF_TEST)
    splits = [assign_split(path, fractions, 0) for path in table.column("path").to_pylist()]
    directory.mkdir(parents=True)
    pq.write_table(table.append_column("split", pa.array(splits)), directory / f"{domain}.parquet")
    return directory


def export_task(run: Path, weights: Path, directory: Path, *, threads: int) -> PhotoTask:
    """Copy the training and validation samples of a run's catalogue into plain arrays."""
    record = Catalogue.from_json((run / "catalogue.json").read_bytes(), source="catalogue.json")
    table = read_samples(str(run), record)
    directory.mkdir(parents=True)
    for split in ("train", "val"):
        pixels_uri = None if record.pixels is None else storage.join(str(run), record.pixels)
        samples = CachedSamples.of(table, table.where(split=split), pixels_uri, record.labels)
        everything = np.arange(len(samples), dtype=np.int64)
        np.save(directory / f"{split}-pixels.npy", samples.take(everything))
        np.save(directory / f"{split}-labels.npy", samples.labels)
    return PhotoTask(directory=directory, weights=weights, num_classes=len(record.labels), threads=threads)
