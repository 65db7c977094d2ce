"""Drives the diversity pass the way the command line does: after the catalogue, in the same session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from local_ray import local_ray
from sizes import IMAGE_SIZE, WIDTH, Place

from orchestrator.cluster.session import session, set_environment
from orchestrator.experiment_file import validate_experiment
from orchestrator.pipeline import Pipeline
from orchestrator.records import Profile


def shards_of(place: Place, *, copies: int = 1) -> Path:
    """Write the shards of PACS, or some rows of each, as often as asked for, every copy with identities of its own."""
    directory = place.fresh("pacs")
    directory.mkdir()
    for shard in sorted(place.data.glob("*.parquet")):
        table = pq.read_table(shard).slice(0, place.sizes.max_images)
        paths = table.column("path").to_pylist()
        for copy in range(copies):
            column = [[f"{copy}/{path}" for path in paths]]
            renamed = table.set_column(table.column_names.index("path"), "path", column)
            # In the same order, what is measured of one copy would be found again for the next.
            order = np.random.default_rng(copy).permutation(table.num_rows)
            pq.write_table(renamed.take(pa.array(order)), directory / f"{copy}-{shard.name}")
    return directory


@contextmanager
def catalogued(place: Place, data: Path) -> Iterator[Pipeline]:
    """Hold a session in which everything up to the catalogue has run: what follows finds processes that run already."""
    config = validate_experiment(
        {
            "name": "pacs",
            "storage_path": str(place.fresh("runs")),
            "data": {"uri": str(data), "image": "image", "label": "label", "subset": "domain", "id": "path"},
            "backbone": {
                "name": "mobilenet_v2",
                "kwargs": {"width_mult": WIDTH},
                "weights": str(place.weights),
                "image_size": IMAGE_SIZE,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
            "diversity": {"measures": ["label_entropy", "pixel_entropy", "feature_diversity"], "split": "all"},
        }
    )
    set_environment()
    with local_ray(num_cpus=place.cores, environment={}), session():
        pipeline = Pipeline(config, say=lambda line: None)
        pipeline.run(["pretrain", "catalogue"])
        yield pipeline


def timed_profile(pipeline: Pipeline) -> tuple[float, Profile]:
    """Run the stage and give its wall seconds, records and kept measures included."""
    started = time.perf_counter()
    pipeline.run(["profile"])
    return time.perf_counter() - started, pipeline.profiled()
