"""Two real ranks over gloo, each a process of its own."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing


@contextmanager
def meeting(rank: int, directory: str, *, timeout_s: float) -> Iterator[None]:
    """Hold the group of both ranks, in one of them, with one thread."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{directory}/meeting",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=timeout_s / 2),
    )
    yield
    dist.destroy_process_group()


def run_two_ranks(run_rank: Callable[[int, str], None], directory: Path, *, timeout_s: float) -> None:
    """Run a function of a module with each rank and the directory; fail when they are not done in time."""
    context = torch.multiprocessing.start_processes(
        run_rank, args=(str(directory),), nprocs=2, join=False, start_method="spawn"
    )
    deadline = time.monotonic() + timeout_s
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail(f"two ranks were not done after {timeout_s} s")
