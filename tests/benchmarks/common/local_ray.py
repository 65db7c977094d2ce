"""Starts a fresh Ray on this machine for one measurement and ends it after: no side inherits the other's workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray


@contextmanager
def local_ray(*, num_cpus: int, environment: Mapping[str, str], dashboard: bool = False) -> Iterator[None]:
    """Hold a Ray of `num_cpus` CPUs whose processes see these variables."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=dashboard,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        yield
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
