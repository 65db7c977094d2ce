"""Seeds torch's generators from values for a block of code, and leaves them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*values: int, device: str = "cpu") -> Iterator[None]:
    """Draw from generators seeded by `values`, each at least 0, on the CPU and on `device`."""
    place = torch.device(device)
    forked = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(int(np.random.SeedSequence(values).generate_state(1)[0]))
        yield
