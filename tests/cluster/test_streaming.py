"""Data larger than the pixel cache: the search works on the cached sample, the final training streams all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from tiny_experiments import SUBSETS

from orchestrator.cluster.training import WholeSplit
from orchestrator.config import ExperimentConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.pipeline import Pipeline
from orchestrator.records import Report

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

PIXEL_BYTES = 32 * 32 * 3


@pytest.mark.slow
def test_a_run_streams_what_the_cache_does_not_hold(tiny_experiment: Callable[..., ExperimentConfig]) -> None:
    made = sum(sum(labels.values()) for labels in SUBSETS.values())
    config = tiny_experiment(
        data={"max_bad_fraction": 0.05, "max_cache_bytes": (made + 2) * PIXEL_BYTES // 2},
        grouping={"num_groups": 1},
        search={"num_samples": 1, "space": {"freeze_depth": [3], "epochs": [2], "learning_rate": [0.001]}},
        train={"num_workers": 2, "batch_norm": "train"},
    )
    Pipeline(config, say=lambda line: None).run()
    directory = Path(config.storage_path) / config.name
    report = Report.from_json((directory / "report.json").read_bytes(), source="report.json")
    assert 0.25 * made < report.catalogue.num_cached < 0.75 * made
    assert report.catalogue.num_images == made
    table = SampleTable(pq.read_table(directory / report.catalogue.table))
    assert report.evaluations[0].num_images == len(table.where(split="test"))
    assert [len(card.history) for card in report.models] == [2]


def test_a_stream_is_shared_out_over_the_ranks_without_losing_or_repeating_a_row() -> None:
    blocks = [pa.table({"id": np.arange(start, start + 7)}) for start in range(0, 91, 7)]
    shares = WholeSplit().configure({"train": ray.data.from_arrow(blocks)}, 2, None, None)

    @ray.remote(num_cpus=0.5)
    def read(iterator: Any) -> list[int]:
        return [int(i) for batch in iterator.iter_batches(batch_size=4) for i in batch["id"]]

    for _ in range(2):
        seen = ray.get([read.remote(share["train"]) for share in shares], timeout=120)
        assert sorted(seen[0] + seen[1]) == list(range(91))
