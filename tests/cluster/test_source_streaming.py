"""A source that is larger than its pixel cache: its images come from the cache and from files, pass after pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import write_parquet_shards
from finetune_examples import a_spec
from group_contexts import write_catalogue
from numpy.typing import NDArray
from tiny_experiments import SUBSETS, experiment_dict
from workbenches import random_workbench

from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.source_streaming import RankStream
from orchestrator.cluster.training import TrainingJob, TrainingPlan, run_jobs
from orchestrator.config import ExperimentConfig
from orchestrator.data.reader import PixelReader, blocks_of, write_fragments
from orchestrator.data.sources import list_fragments
from orchestrator.data.streamed_source import StreamedSource
from orchestrator.errors import DataError, ResourceError
from orchestrator.experiment_file import validate_experiment
from orchestrator.pipeline import Pipeline
from orchestrator.records import Catalogue, Hyperparameters, Report

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

PIXEL_BYTES = 32 * 32 * 3
LABELS = {"circle": 25, "stripe": 20, "cross": 15}


def some_source(directory: Path) -> StreamedSource:
    """Write images of which a third is not cached, each learnt by its place in the catalogue."""
    data = write_parquet_shards(directory / "data", subsets={"elsewhere": LABELS}, num_shards=3)
    config = validate_experiment(experiment_dict(data, directory / "runs")).data
    table = write_catalogue(validate_experiment(experiment_dict(data, directory / "runs")), directory / "pixels").table
    rows = [-1 if number % 3 == 0 else row for number, row in enumerate(table.column("pixel_row").to_pylist())]
    table = table.set_column(table.schema.get_field_index("pixel_row"), "pixel_row", pa.array(rows, pa.int32()))
    write_fragments(str(directory / "fragments.json"), list_fragments(config))
    reader = PixelReader(
        data=config,
        image_size=32,
        resize="crop",
        pixels_uri=str(directory / "pixels"),
        fragments_uri=str(directory / "fragments.json"),
    )
    return StreamedSource.of(table, np.arange(table.num_rows), reader)


def some_draws(stream: RankStream, count: int, *, first: int = 0) -> tuple[NDArray[np.uint8], list[int]]:
    """Give the first so many images and their labels, and let go of the stream."""
    pixels: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    pieces = stream.draws(first)
    while len(labels) < count:
        piece = next(pieces)
        pixels.append(piece[0])
        labels += piece[1].tolist()
    pieces.close()
    return np.concatenate(pixels)[:count], labels[:count]


def test_each_rank_is_given_its_own_images_pass_after_pass_and_from_any_draw_on(tmp_path: Path) -> None:
    source = some_source(tmp_path)
    streams = [RankStream(source=source, number=number, world_size=2, seed=1) for number in range(2)]
    found = [some_draws(stream, 90) for stream in streams]
    own = [Counter(labels) for _, labels in found]
    # Three passes of thirty images each, which are another rank's in no pass.
    assert [set(counts.values()) for counts in own] == [{3}, {3}]
    assert sorted([*own[0], *own[1]]) == list(range(60))
    by_number = {
        label: image
        for block in blocks_of(source.rows, 60)
        for label, image in zip(block.column("target").to_pylist(), source.reader.read(block), strict=True)
    }
    for pixels, labels in found:
        np.testing.assert_array_equal(pixels, np.stack([by_number[label] for label in labels]))
    later, labels = some_draws(streams[1], 20, first=37)
    assert labels == found[1][1][37:57]
    np.testing.assert_array_equal(later, found[1][0][37:57])
    assert streams[0].count_labels().num_samples == 60


def test_an_image_that_is_no_longer_there_is_named(tmp_path: Path) -> None:
    source = some_source(tmp_path)
    shard = sorted((tmp_path / "data").glob("*.parquet"))[0]
    pq.write_table(pq.read_table(shard).slice(0, 1), shard)
    with pytest.raises(DataError):
        some_draws(RankStream(source=source, number=0, world_size=1, seed=1), 60)


def test_a_streamed_source_leaves_a_cpu_to_the_tasks_that_read(tmp_path: Path) -> None:
    job = TrainingJob(
        group="low",
        subsets=("a",),
        hyperparameters=Hyperparameters(
            freeze_depth=0, learning_rate=1e-3, epochs=1, batch_size=8, optimizer="adam", weight_decay=0.0
        ),
        fingerprint="f",
        data_fingerprint="d",
        run_name="low-f",
        model_uri="m",
        storage_uri="s",
        source_stream=some_source(tmp_path),
    )
    shape = ClusterShape(nodes=({"CPU": 4.0},))
    config = validate_experiment(experiment_dict("/data", "/runs"))
    plan = TrainingPlan.of(config, [job], shape)
    assert plan.resources_per_worker == {"CPU": 3.0}
    greedy = config.model_copy(update={"train": config.train.model_copy(update={"resources_per_worker": {"CPU": 4.0}})})
    with pytest.raises(ResourceError, match="streaming must leave one CPU"):
        next(run_jobs([job], {}, random_workbench(a_spec()), TrainingPlan.of(greedy, [job], shape), shape))


@pytest.mark.slow
def test_a_run_streams_source_and_target_that_their_caches_do_not_hold(
    tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    made = sum(sum(labels.values()) for labels in SUBSETS.values())
    source = write_parquet_shards(tmp_path / "source", subsets={"elsewhere": {"circle": 40, "blob": 40}}, seed=3)
    read = {"image": "image", "label": "label", "id": "id", "split": {"fractions": {"val": 0.1, "test": 0.1}}}
    config = tiny_experiment(
        data={"max_bad_fraction": 0.05, "max_cache_bytes": (made + 2) * PIXEL_BYTES // 2},
        source={"data": {"uri": str(source), **read, "max_cache_bytes": 30 * PIXEL_BYTES}, "penalty": "coral"},
        grouping={"num_groups": 1},
        search={"num_samples": 1, "space": {"freeze_depth": [3], "epochs": [2], "learning_rate": [0.001]}},
        train={"num_workers": 2, "batch_norm": "train"},
        evaluate={"explanations": 0, "bootstrap_samples": 100},
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    directory = Path(config.storage_path) / config.name
    report = Report.from_json((directory / "report.json").read_bytes(), source="report.json")
    catalogue = Catalogue.from_json((directory / "source/catalogue.json").read_bytes(), source="catalogue.json")
    (model,) = report.models
    assert 0 < catalogue.num_cached < 40 and report.catalogue.num_cached < report.catalogue.num_images
    assert model.source is not None and model.num_workers == 2 and len(model.history) == 2
    assert model.source.num_images == sum(subset.train for subset in catalogue.subsets)
    assert model.source.num_searched is not None and 0 < model.source.num_searched < model.source.num_images
    assert (model.source.shared_classes, model.source.num_other_classes) == (["circle"], 1)
    said = f"the {model.source.num_images} images of the source are streamed, of which the search had the"
    assert any(said in line for line in lines)
    assert "All were streamed" in (directory / "report.html").read_text()
    again: list[str] = []
    Pipeline(config, say=again.append).run(["train"])
    assert again[-1].endswith("up to date, skipped")
