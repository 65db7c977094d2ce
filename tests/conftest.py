"""Fixtures that many rooms' tests share: one Ray cluster for the session, and tiny experiments."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import pytest
import ray
from builders import write_parquet_shards
from moto.server import ThreadedMotoServer
from pyarrow import fs
from ray.cluster_utils import Cluster
from tiny_experiments import SUBSETS, experiment_dict
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from orchestrator.cluster.session import set_environment
from orchestrator.config import ExperimentConfig
from orchestrator.experiment_file import validate_experiment

# Rooms whose tests need Ray, or start processes that look for a cluster on this machine.
ROOMS_ON_RAY = ("tests", "tests/cluster", "tests/stages")


class RoomScheduling(LoadScopeScheduling):
    """Keep the tests that need Ray in one process, as they share a cluster; deal out the others by module."""

    def _split_scope(self, nodeid: str) -> str:
        module = PurePosixPath(nodeid.partition("::")[0])
        return "ray" if module.parent.as_posix() in ROOMS_ON_RAY else module.as_posix()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> RoomScheduling:
    return RoomScheduling(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """Two raylets of two CPUs on this machine: what needs two nodes finds them, and start-up is paid once."""
    set_environment()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="warning", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Serve S3 on the loopback address for the session; give its URL."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give an empty bucket's URI; the environment finds its server the way any S3-compatible store is found."""
    settings = {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for name, value in {**settings, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid4().hex}"
    fs.S3FileSystem(endpoint_override=s3_endpoint, allow_bucket_creation=True).create_dir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subsets in three Parquet shards, with two rows that cannot be decoded."""
    return write_parquet_shards(tmp_path_factory.mktemp("tiny") / "data", subsets=SUBSETS, num_shards=3, bad_rows=2)


@pytest.fixture
def tiny_experiment(tiny_data: Path, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """Make a tiny experiment in a fresh run directory, with sections changed at will."""

    def make(**sections: Any) -> ExperimentConfig:
        sections.setdefault("data", {"max_bad_fraction": 0.05})
        return validate_experiment(experiment_dict(tiny_data, tmp_path / "runs", **sections))

    return make


@pytest.fixture(scope="session")
def tiny_profile(ray_cluster: Cluster, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage path of a tiny run that was stopped after its profile."""
    from orchestrator.pipeline import Pipeline

    storage_path = tmp_path_factory.mktemp("profiled") / "runs"
    config = validate_experiment(experiment_dict(tiny_data, storage_path, data={"max_bad_fraction": 0.05}))
    Pipeline(config, say=lambda line: None).run(["pretrain", "catalogue", "profile"])
    return storage_path


@pytest.fixture
def profiled_experiment(
    tiny_profile: Path, tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> Callable[..., ExperimentConfig]:
    """Make a tiny experiment whose run directory holds the stages up to the profile: tests of later ones start there.

    Sections that those stages depend on make them run again.
    """
    shutil.copytree(tiny_profile, tmp_path / "runs")
    return tiny_experiment
