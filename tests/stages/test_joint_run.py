"""A tiny run with a source that is to be rejected: every stage real, from its catalogue to the score in predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builders import write_parquet_shards

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.pipeline import Pipeline
from orchestrator.records import Report

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600), pytest.mark.slow]


def test_a_source_that_is_rejected_goes_the_whole_way(
    profiled_experiment: Callable[..., ExperimentConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parquet_shards(
        tmp_path / "source", subsets={"elsewhere": {"blob": 30, "noise": 30}}, num_shards=1, seed=3
    )
    for shard in source.glob("*.parquet"):
        # What is not the target needs no name.
        pq.write_table(pq.read_table(shard).drop_columns(["label"]), shard)
    config = profiled_experiment(
        source={"uri": str(source), "as_negatives": "reject", "batch_share": 0.3},
        grouping={"num_groups": 1},
        search={"num_samples": 2, "space": {"freeze_depth": [3, 6], "learning_rate": [0.003], "epochs": [2]}},
        evaluate={"explanations": 0, "bootstrap_samples": 100},
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    directory = Path(config.storage_path) / config.name
    report = Report.from_json((directory / "report.json").read_bytes(), source="report.json")
    (model,), (evaluation,) = report.models, report.evaluations
    assert model.source is not None and model.output_counts == [len(model.classes) + 1] == [5]
    assert model.source.num_images == _rows(directory, "train")
    assert all(trial.status == "complete" for trial in report.searches[0].trials)
    assert {baseline.name: baseline.error for baseline in evaluation.baselines}["target_only"] is None
    assert evaluation.outliers is not None and evaluation.outliers.num_target == evaluation.num_images
    assert evaluation.outliers.num_source == _rows(directory, "val", "test")
    # The classes of the source are none of its own images': told apart by what they look like.
    assert evaluation.outliers.auc > 0.5
    assert "Source and target together" in (directory / "report.html").read_text()
    # The source is a part of what is up to date.
    again: list[str] = []
    Pipeline(config, say=again.append).run(["catalogue", "search", "train", "evaluate"])
    assert [line.partition(": ")[2] for line in again] == ["up to date, skipped"] * 4
    # A run is taken up as it stands, whatever has become of its source.
    source.rename(tmp_path / "moved")
    assigned = Pipeline.of_run(str(directory), say=lambda line: None).assign(config.data.uri)
    assert {found.group for found in assigned.assignments} == {model.group}
    source = tmp_path / "moved"
    output = tmp_path / "predicted"
    capsys.readouterr()
    assert (
        main(["predict", str(directory / "groups" / model.group / "model"), str(source), "--output", str(output)]) == 0
    )
    table = pq.read_table(output)
    assert [name for name in table.column_names if name.startswith("probability_")] == [
        f"probability_{name}" for name in model.classes
    ]
    assert all(0 <= score <= 1 for score in table.column("out_of_distribution").to_pylist())
    first = table.select([f"probability_{name}" for name in model.classes]).slice(0, 1).to_pylist()[0]
    assert sum(first.values()) == pytest.approx(1.0, abs=1e-5)


def test_prototypes_of_target_and_source_are_found_without_a_stream_and_the_report_says_so(
    profiled_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    source = write_parquet_shards(
        tmp_path / "source", subsets={"elsewhere": {"circle": 30, "blob": 30}}, num_shards=2, seed=3
    )
    read = {"image": "image", "label": "label"}
    config = profiled_experiment(
        # A third of the source's images fit the cache: other heads would stream it.
        source={"data": {"uri": str(source), **read, "max_cache_bytes": 20 * 32 * 32 * 3}, "weight": 0.5},
        grouping={"num_groups": 1},
        finetune={"head": "prototype"},
        search={"num_samples": 1, "space": {"freeze_depth": [6], "learning_rate": [0.003], "epochs": [2]}},
        evaluate={"explanations": 0, "bootstrap_samples": 100},
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    directory = Path(config.storage_path) / config.name
    report = Report.from_json((directory / "report.json").read_bytes(), source="report.json")
    (model,), (evaluation,) = report.models, report.evaluations
    assert len(model.history) == 1 and model.output_counts == [len(model.classes)]
    assert model.source is not None and model.source.batch_share is None and model.source.num_searched is None
    assert 0 < model.source.num_images < _rows(directory, "train")
    assert {baseline.name: baseline.error for baseline in evaluation.baselines}["target_only"] is None
    assert (
        "prototypes are means over target and source, weighed by 1 and 0.50" in (directory / "report.html").read_text()
    )
    assert not [line for line in lines if "streamed" in line]


def _rows(directory: Path, *splits: str) -> int:
    (path,) = directory.glob("source/catalogue/*/catalogue.parquet")
    return sum(split in splits for split in pq.read_table(path).column("split").to_pylist())
