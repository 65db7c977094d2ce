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
from builders import build_rows
from label_set_images import label_set_rows
from tiny_experiments import SUBSETS

from orchestrator.cluster.training import WholeSplit
from orchestrator.config import ExperimentConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.finetune.models import load_card
from orchestrator.pipeline import STAGES, Pipeline
from orchestrator.records import Catalogue, Report

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


def label_columns(directory: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write data of one kind of labels, and give the sections `data` and `finetune` for it."""
    directory.mkdir()
    if kind == "any number of labels":
        rows = label_set_rows({"a": 60, "b": 60}, shares={"bar": 0.5, "disc": 0.4, "frame": 0.3})
        fields, finetune = {"label": "labels", "label_separator": "|"}, {}
    else:
        forms = {"circle": "round", "stripe": "straight", "cross": "straight", "noise": None}
        rows = [{**row, "form": forms[str(row["label"])]} for row in build_rows(subsets=SUBSETS)]
        is_columns = kind == "several tasks"
        fields, finetune = ({"tasks": ["form"]}, {"class_weights": "balanced"}) if is_columns else ({}, {})
    pq.write_table(pa.Table.from_pylist(rows), directory / "x.parquet")
    return {"uri": str(directory), "max_cache_bytes": len(rows) * PIXEL_BYTES // 2, **fields}, finetune


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["several tasks", "heads of subsets", "any number of labels"])
def test_samples_of_every_kind_of_labels_are_streamed(
    tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path, kind: str
) -> None:
    data, finetune = label_columns(tmp_path / "data", kind)
    config = tiny_experiment(
        data=data,
        finetune=finetune,
        grouping={"num_groups": 1},
        search={"num_samples": 1, "space": {"freeze_depth": [3], "epochs": [2], "learning_rate": [0.001]}},
        train={
            "num_workers": 2,
            "batch_norm": "train",
            "scope": "group" if kind == "any number of labels" else "multitask",
            "heads": "subset" if kind == "heads of subsets" else "column",
        },
    )
    Pipeline(config, say=lambda line: None).run(STAGES[: STAGES.index("train") + 1])
    directory = Path(config.storage_path) / config.name
    catalogue = Catalogue.from_json((directory / "catalogue.json").read_bytes(), source="catalogue.json")
    assert 0 < catalogue.num_cached < catalogue.num_images
    card = load_card(str(directory / "groups/g0/model"))
    # An epoch of a stream ends with an error unless it brings each sample once.
    assert len(card.history) == 2 and card.num_workers == 2
    assert len(card.tasks) == {"several tasks": 2, "heads of subsets": len(SUBSETS), "any number of labels": 0}[kind]


def test_a_stream_is_shared_out_over_the_ranks_without_losing_or_repeating_a_row() -> None:
    blocks = [pa.table({"id": np.arange(start, start + 7)}) for start in range(0, 91, 7)]
    shares = WholeSplit().configure({"train": ray.data.from_arrow(blocks)}, 2, None, None)

    @ray.remote(num_cpus=0.5)
    def read(iterator: Any) -> list[int]:
        return [int(i) for batch in iterator.iter_batches(batch_size=4) for i in batch["id"]]

    for _ in range(2):
        seen = ray.get([read.remote(share["train"]) for share in shares], timeout=120)
        assert sorted(seen[0] + seen[1]) == list(range(91))
