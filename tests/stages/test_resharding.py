"""Test results do not depend on where the samples lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.config import ExperimentConfig
from orchestrator.pipeline import Pipeline
from orchestrator.records import Report

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(400)]


@pytest.mark.slow
def test_baselines_of_an_earlier_run_stay_paired_with_their_images_after_resharding(
    tiny_data: Path, tmp_path: Path, tiny_experiment: Callable[..., ExperimentConfig]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    whole = pq.read_table(tiny_data)
    pq.write_table(whole, data / "a.parquet")
    options = {"uri": str(data), "max_bad_fraction": 0.05}
    config = tiny_experiment(data=options, search={"num_samples": 1}, grouping={"num_groups": 1})
    Pipeline(config, say=lambda line: None).run()
    before = report_of(config)

    (data / "a.parquet").unlink()
    backwards = whole.take(list(range(whole.num_rows))[::-1])
    pq.write_table(backwards.slice(0, 50), data / "b.parquet")
    pq.write_table(backwards.slice(50), data / "c.parquet")
    Path(config.storage_path, config.name, "groups", before.groups.groups[0].name, "evaluation.json").unlink()
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    after = report_of(config)

    assert "train: up to date, skipped" in lines
    assert not [line for line in lines if ": baseline " in line]
    assert after.catalogue.data_fingerprint == before.catalogue.data_fingerprint
    assert after.evaluations[0].baselines == before.evaluations[0].baselines
    assert after.evaluations[0].confusion_matrix == before.evaluations[0].confusion_matrix
    assert len(list(Path(config.storage_path, config.name, "catalogue").iterdir())) == 1


def report_of(config: ExperimentConfig) -> Report:
    return Report.from_json(Path(config.storage_path, config.name, "report.json").read_bytes(), source="report.json")
