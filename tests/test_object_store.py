"""A run whose storage path is on S3, against a real S3 server on the loopback address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pyarrow import fs
from tiny_experiments import experiment_dict

from orchestrator import storage
from orchestrator.records import Report


def test_files_are_written_read_listed_and_deleted(s3_bucket: str) -> None:
    uri = storage.join(s3_bucket, "folder")
    assert isinstance(storage.resolve(uri)[0], fs.S3FileSystem)
    storage.write_bytes(storage.join(uri, "a.txt"), b"hello")
    assert storage.exists(storage.join(uri, "a.txt"))
    assert storage.read_bytes(storage.join(uri, "a.txt")) == b"hello"
    assert [info.base_name for info in storage.list_files(uri)] == ["a.txt"]
    storage.write_table_parts(storage.join(uri, "b.parquet"), [pa.table({"n": [1]}), pa.table({"n": [2]})])
    assert storage.read_table(storage.join(uri, "b.parquet")).column("n").to_pylist() == [1, 2]
    storage.delete(storage.join(uri, "a.txt"))
    assert not storage.exists(storage.join(uri, "a.txt"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_s3_passes_and_resumes_there(s3_bucket: str, tiny_data: Path, tmp_path: Path) -> None:
    content = experiment_dict(
        tiny_data,
        f"{s3_bucket}/results",
        data={"max_bad_fraction": 0.05},
        search={"num_samples": 1},
        grouping={"num_groups": 1},
    )
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(yaml.safe_dump(content))
    first = _run(experiment, tmp_path)
    assert f"Report: {s3_bucket}/results/tiny/report.html" in first
    report = Report.from_json(storage.read_bytes(f"{s3_bucket}/results/tiny/report.json"), source="report.json")
    assert report.evaluations[0].accuracy is not None
    assert storage.exists(f"{s3_bucket}/results/tiny/groups/{report.groups.groups[0].name}/study.log")
    again = _run(experiment, tmp_path)
    for stage in ("pretrain", "catalogue", "profile", "group", "search", "train", "evaluate"):
        assert f"{stage}: up to date, skipped" in again


def _run(experiment: Path, home: Path) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", str(experiment)],
        env={**os.environ, "XDG_CACHE_HOME": str(home / "cache"), "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
