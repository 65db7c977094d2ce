"""Measure the catalogue pass: images per second against a bare loop that does the same on every core.

    python tests/benchmarks/catalogue_rate.py [--images 4000] [--repeats 3]

Prints one JSON object: the ratio of the peer's time to ours, medians over alternated repeats. The peer reads the
same Parquet shards, decodes, resizes and writes the pixels in a pool of processes, without a table, splits,
quarantine or a cluster. Ray's start-up is left out of ours, the pool's of the peer's; both import torchvision anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders import write_parquet_shards

from orchestrator.cluster.ingest import IngestPlan, make_catalogue
from orchestrator.cluster.session import session
from orchestrator.config import DataConfig
from orchestrator.data.decoding import decode_image, resize_image

IMAGE_SIZE = 96


def decode_shard(task: tuple[Path, Path]) -> int:
    """Decode one shard as a bare loop would."""
    source, target = task
    images = pq.read_table(source, columns=["image"]).column("image").to_pylist()
    np.save(target, np.stack([resize_image(decode_image(image), IMAGE_SIZE, "crop") for image in images]))
    return len(images)


def time_peer(shards: list[Path], directory: Path) -> float:
    """Time the bare loop over all cores."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        started = time.perf_counter()
        pool.map(decode_shard, [(shard, directory / f"{shard.stem}.npy") for shard in shards], chunksize=1)
        return time.perf_counter() - started


def time_ours(data: Path, directory: Path) -> float:
    """Time the catalogue pass."""
    config = DataConfig(uri=str(data), image="image", label="label", subset="subset", id="id")
    plan = IngestPlan(
        data=config, image_size=IMAGE_SIZE, resize="crop", seed=0, run_uri=str(directory), folder="catalogue",
        stall_timeout_s=300,
    )  # fmt: skip
    return make_catalogue(plan, fingerprint="benchmark").seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as scratch, session():
        subsets = {
            f"site-{index}": {"circle": arguments.images // 8, "stripe": arguments.images // 8} for index in range(4)
        }
        data = write_parquet_shards(Path(scratch) / "data", subsets=subsets, num_shards=16, image_px=128)
        shards = sorted(data.glob("*.parquet"))
        for _ in range(arguments.repeats):
            ours.append(time_ours(data, Path(tempfile.mkdtemp(dir=scratch))))
            peer.append(time_peer(shards, Path(tempfile.mkdtemp(dir=scratch))))
    ratio = statistics.median(peer) / statistics.median(ours)
    result = {
        "benchmark": "catalogue_vs_bare_pool", "ratio": round(ratio, 3), "aim": None,
        "ours": round(arguments.images / statistics.median(ours), 1),
        "peer": round(arguments.images / statistics.median(peer), 1), "unit": "images/s",
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
