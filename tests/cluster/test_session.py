"""Which cluster a command joins, and that a cluster that is gone keeps nobody waiting."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.cluster.session import cluster_address

_OPEN_A_SESSION = "from orchestrator.cluster.session import session\nwith session() as place: print(place)"

_ASK_THE_DASHBOARD = """
import os
from orchestrator.cluster.session import require_dashboard, session
with session() as place:
    print(place)
    require_dashboard("a test")
assert "RAY_API_SERVER_ADDRESS" not in os.environ
"""


@pytest.fixture
def ray_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _leave_word(ray_directory: Path, port: int) -> None:
    (ray_directory / "ray_current_cluster").write_text(f"127.0.0.1:{port}")


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_named_cluster_is_joined(ray_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_address() == "10.0.0.1:6379"


def test_a_local_cluster_is_started_where_there_is_none(ray_directory: Path) -> None:
    assert cluster_address() == "local"


def test_ray_finds_a_started_cluster_that_answers(ray_directory: Path, listener: socket.socket) -> None:
    _leave_word(ray_directory, listener.getsockname()[1])
    assert cluster_address() is None


def test_a_cluster_that_was_killed_is_not_waited_for(ray_directory: Path) -> None:
    _leave_word(ray_directory, _unused_port())
    assert cluster_address() == "local"


def test_word_of_a_cluster_that_cannot_be_read_is_no_cluster(ray_directory: Path) -> None:
    (ray_directory / "ray_current_cluster").write_text("nowhere\n")
    assert cluster_address() == "local"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for the sockets of Ray: their paths must be short, and pytest's own may be too long."""
    with TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def test_a_session_starts_beside_the_remains_of_a_killed_cluster(short_path: Path) -> None:
    directory = short_path
    (directory / "ray").mkdir()
    _leave_word(directory / "ray", _unused_port())
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    finished = subprocess.run(
        [sys.executable, "-c", _OPEN_A_SESSION],
        env={**environment, "RAY_TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "local Ray: 1 node(s)" in finished.stdout


@pytest.mark.usefixtures("ray_cluster")
def test_the_processes_of_a_local_cluster_find_its_dashboard_beside_another_cluster() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", _ASK_THE_DASHBOARD],
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "local Ray: 1 node(s)" in finished.stdout
