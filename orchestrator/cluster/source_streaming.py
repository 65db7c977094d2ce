"""Streams a source that is larger than its pixel cache: every rank has its own images decoded by tasks, a window ahead.

A pipeline of Ray Data for each rank would end, and start anew, with every pass, and each would plan with all CPUs of
the cluster; one pipeline that is split would let no rank begin a pass before all have ended theirs, while they wait for
each other's gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from orchestrator.cluster.failures import translated
from orchestrator.cluster.ranks import Rank
from orchestrator.cluster.resources import DATA_TASK_CPU
from orchestrator.cluster.tasks import as_task
from orchestrator.data.endless_rows import Window, blocks_of_rank, rows_of_block, rows_of_window, windows
from orchestrator.data.streamed_source import StreamedSource, read_labelled
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.label_counts import LabelCounts

_PIECE_ROWS = 64
_WINDOWS_AHEAD = 2


def with_stream(companion: Companion | None, source: StreamedSource | None, rank: Rank[Any]) -> Companion | None:
    """Let a companion give all of its source, where what is held of it is a sample."""
    if companion is None or source is None:
        return companion
    stream = RankStream(source=source, number=rank.number, world_size=rank.world_size, seed=rank.workbench.order_seed)
    return replace(companion, stream=stream)


@dataclass(frozen=True, kw_only=True, eq=False)
class RankStream:
    """Give a rank its own images of a source, pass after pass, in an order by the seed, the rank and the pass."""

    source: StreamedSource
    number: int
    world_size: int
    seed: int

    def count_labels(self) -> LabelCounts:
        """Count the labels of all ranks' samples."""
        return LabelCounts.of(self.source.labels)

    def draws(self, first: int) -> Generator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Give pixels and labels in pieces, from this rank's draw number `first` on, without end.

        While a window is given the next one is decoded. Raises what reading raises.
        """
        reader = self.source.reader
        most_rows = rows_of_block(reader.image_size, is_fine=reader.reads_single_rows)
        blocks = blocks_of_rank(self.source.rows, self.number, self.world_size, most_rows=most_rows, seed=self.seed)
        planned = windows(blocks, first, most_rows=rows_of_window(reader.image_size), seeds=(self.seed, self.number))
        task = as_task(read_labelled, {"CPU": DATA_TASK_CPU})
        ahead: deque[tuple[Window, list[Any]]] = deque()
        try:
            while True:
                while len(ahead) < _WINDOWS_AHEAD:
                    window = next(planned)
                    ahead.append((window, [task.remote(reader, block) for block in window.blocks]))
                pixels, labels = _gathered(ahead[0][1])
                order = ahead.popleft()[0].order
                for start in range(0, len(order), _PIECE_ROWS):
                    places = order[start : start + _PIECE_ROWS]
                    yield pixels[places], labels[places]
        finally:
            for _, decoding in ahead:
                for reference in decoding:
                    ray.cancel(reference)


def _gathered(decoding: list[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with translated("the stream of a source"):
        found = ray.get(decoding)
    pixels, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pixels, labels
