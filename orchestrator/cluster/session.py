"""Connects to Ray, and turns the signals that stop a job into one clean interruption."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import ray
from ray.exceptions import RayError

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


@contextmanager
def session() -> Iterator[str]:
    """Join the cluster that RAY_ADDRESS names or start a local one; give a sentence that says which.

    A local cluster ends with the block; a joined one stays. Inside an initialised process nothing is started.
    """
    set_environment()
    started_here = not ray.is_initialized()
    if started_here:
        _connect()
    _quieten()
    try:
        # After the connection: Ray's core puts its own handler in place, which ends the process at once.
        with _interruptible():
            yield _describe()
    finally:
        if started_here:
            ray.shutdown()


def set_environment() -> None:
    """Set what Ray reads from the environment of a process that starts work."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _connect() -> None:
    address = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise ResourceError(
            "the Ray cluster must be reachable",
            value=address or "a local start",
            remedy=f"Check RAY_ADDRESS, `ray status` and the token. Ray says: {error}",
        ) from error


def _describe() -> str:
    total = ray.cluster_resources()
    nodes = len([node for node in ray.nodes() if node["Alive"]])
    address = os.environ.get("RAY_ADDRESS")
    place = f"cluster at {address}" if address else "local Ray"
    return f"{place}: {nodes} node(s), {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"


def _quieten() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
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
