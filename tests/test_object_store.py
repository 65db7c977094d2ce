"""A run whose storage path is on S3, against a real S3 server on the loopback address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pyarrow import fs
from tiny_experiments import experiment_dict

from orchestrator import storage
from orchestrator.records import Report

BUCKET = "runs"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def s3_environment() -> Iterator[dict[str, str]]:
    """Serve S3 and give the environment that finds it, the way any S3-compatible store is found."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        _wait_for_port(port)
        file_system, _ = storage.resolve(f"s3://{BUCKET}")
        fs.S3FileSystem(endpoint_override=environment["AWS_ENDPOINT_URL"], allow_bucket_creation=True).create_dir(
            BUCKET
        )
        assert isinstance(file_system, fs.S3FileSystem)
        yield environment
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        server.terminate()
        server.wait(timeout=30)


def _wait_for_port(port: int) -> None:
    for _ in range(150):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"no S3 server came up on port {port} within 30 s")


def test_files_are_written_read_listed_and_deleted(s3_environment: dict[str, str]) -> None:
    uri = f"s3://{BUCKET}/folder"
    storage.write_bytes(storage.join(uri, "a.txt"), b"hello")
    assert storage.exists(storage.join(uri, "a.txt"))
    assert storage.read_bytes(storage.join(uri, "a.txt")) == b"hello"
    assert [info.base_name for info in storage.list_files(uri)] == ["a.txt"]
    storage.delete(storage.join(uri, "a.txt"))
    assert not storage.exists(storage.join(uri, "a.txt"))


@pytest.mark.timeout(600)
def test_a_run_on_s3_passes_and_resumes_there(s3_environment: dict[str, str], tiny_data: Path, tmp_path: Path) -> None:
    content = experiment_dict(
        tiny_data,
        f"s3://{BUCKET}/results",
        data={"max_bad_fraction": 0.05},
        search={"num_samples": 1},
        grouping={"num_groups": 1},
    )
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(yaml.safe_dump(content))
    first = _run(experiment, tmp_path, s3_environment)
    assert "Report: s3://runs/results/tiny/report.html" in first
    report = Report.from_json(storage.read_bytes(f"s3://{BUCKET}/results/tiny/report.json"), source="report.json")
    assert report.evaluations[0].accuracy is not None
    assert storage.exists(f"s3://{BUCKET}/results/tiny/groups/{report.groups.groups[0].name}/study.log")
    again = _run(experiment, tmp_path, s3_environment)
    for stage in ("pretrain", "catalogue", "profile", "group", "search", "train", "evaluate"):
        assert f"{stage}: up to date, skipped" in again


def _run(experiment: Path, home: Path, environment: dict[str, str]) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", str(experiment)],
        env={**os.environ, **environment, "XDG_CACHE_HOME": str(home / "cache"), "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
