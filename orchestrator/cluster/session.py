"""Connects to Ray, and turns the signals that stop a job into one clean interruption."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from orchestrator.errors import ResourceError

# Ray reads these when the driver starts work; what the user has set wins.
_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # much of a short training run is waiting for this poll
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's history is in its study; three more copies cost time
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interruption ends the stage; Tune would go on to the next one
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # the study is the record: Tune's is not read
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without a GPU see the devices; torch is told not to use them
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's newer output prints a table however quiet it is told to be
}

_DASHBOARD_SECONDS = 30  # it answers in milliseconds, but comes up some seconds after the cluster
_MOST_NODES = 10_000  # what the dashboard gives at most
_DASHBOARD_VARIABLE = "RAY_API_SERVER_ADDRESS"
_ANSWER_SECONDS = 2.0  # a connection on one machine takes microseconds; one that a firewall drops never comes


@contextmanager
def session() -> Iterator[str]:
    """Join a cluster or start a local one (`cluster_address` tells which); give a sentence that says so.

    A local cluster ends with the block; a joined one stays. Inside an initialised process nothing is started.
    """
    set_environment()
    started_here = not ray.is_initialized()
    told = os.environ.get(_DASHBOARD_VARIABLE)
    if started_here:
        _connect()
    _set_ray_up()
    try:
        # After the connection: Ray's core puts its own handler in place, which ends the process at once.
        with _interruptible():
            yield _describe()
    finally:
        if started_here:
            ray.shutdown()
            os.environ.pop(_DASHBOARD_VARIABLE, None)
            os.environ.update({} if told is None else {_DASHBOARD_VARIABLE: told})


def require_dashboard(what: str) -> None:
    """Prove that Ray's own processes can ask this cluster's dashboard. Raises ResourceError naming `what` needs it."""
    # On the head node and with no address, as they ask: where clusters share a machine, that may be another's.
    ask: Any = ray.remote(num_cpus=0, max_retries=0, resources={"node:__internal_head__": 0.001})(_nodes_by_dashboard)
    found = ray.get(ask.remote())
    if ray.get_runtime_context().get_node_id() not in found:
        raise ResourceError(
            f"{what} must have a cluster whose dashboard answers on the head node",
            value=found[-1] if found else "no node",
            remedy="Start Ray with its dashboard, and with RAY_ADDRESS set where several clusters share a machine.",
        )


def _nodes_by_dashboard() -> list[str]:
    """Give the ids of the nodes that the dashboard knows, or what went wrong."""
    try:
        nodes: Any = list_nodes(timeout=_DASHBOARD_SECONDS, limit=_MOST_NODES, raise_on_missing_output=False)
    except (RayStateApiException, OSError, ValueError) as error:
        return [f"{type(error).__name__}: {error}"]
    return [node.node_id for node in nodes]


def set_environment() -> None:
    """Set what Ray reads from the environment of a process that starts work."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def cluster_address() -> str | None:
    """Say which cluster to join, in the words of `ray.init(address=...)`.

    The one that RAY_ADDRESS names; else None, by which Ray finds the one that `ray start` left word of on this
    machine; else "local". A cluster that was killed leaves its word behind, and Ray would wait for it for a
    quarter of an hour: it is joined only where something listens at its address.
    """
    named = os.environ.get("RAY_ADDRESS")
    if named:
        return named
    started = _started_address()
    return None if started and _answers(started) else "local"


def _started_address() -> str | None:
    directory = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    path = Path(directory) / "ray" / "ray_current_cluster"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _connect() -> None:
    address = cluster_address()
    try:
        ray.init(
            address=address,
            logging_level=logging.WARNING,
            log_to_driver=False,
            **(_own_dashboard() if address == "local" else {}),
        )
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise ResourceError(
            "the Ray cluster must be reachable",
            value="a local start" if address == "local" else address or _started_address(),
            remedy=f"Check RAY_ADDRESS, `ray status` and the token. Ray says: {error}",
        ) from error


def _own_dashboard() -> dict[str, Any]:
    """Choose the dashboard's port of a local cluster, and tell its processes by their environment.

    Ray Train's PlacementGroupCleaner asks the dashboard which trainings are alive. Untold it looks for a cluster on
    this machine: beside a second one it gives up, or takes the training of its own for dead and its workers away.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    os.environ[_DASHBOARD_VARIABLE] = f"http://127.0.0.1:{port}"
    return {"dashboard_host": "127.0.0.1", "dashboard_port": port}


def _describe() -> str:
    total = ray.cluster_resources()
    nodes = len([node for node in ray.nodes() if node["Alive"]])
    address = os.environ.get("RAY_ADDRESS")
    place = f"cluster at {address}" if address and address != "local" else "local Ray"
    return f"{place}: {nodes} node(s), {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"


def _set_ray_up() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Ray Data's own wrapper keeps no more of an error than its text.
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # Tune looks for the result files that our environment turns off; the studies hold the results.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM (`ray job stop`) like Ctrl-C: KeyboardInterrupt in the main thread, once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # A second one must not interrupt the clean-up after the first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
