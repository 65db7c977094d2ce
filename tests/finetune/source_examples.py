"""Streams of a source that are samples in memory."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from finetune_examples import ArraySamples
from numpy.typing import NDArray

from orchestrator.finetune.label_counts import LabelCounts


@dataclass
class TakenStream:
    """A stream that gives samples in turns of an order, in uneven pieces, and remembers what was taken.

    With several ranks each has its turns of the order.
    """

    samples: ArraySamples
    order: list[int]
    rank: int = 0
    world_size: int = 1
    taken: list[int] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    num_closed: int = 0

    def count_labels(self) -> LabelCounts:
        return LabelCounts.of(self.samples.labels)

    def draws(self, first: int) -> Generator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        self.opened.append(first)
        try:
            for number in count(first):
                position = self.order[(number * self.world_size + self.rank) % len(self.order)]
                self.taken.append(position)
                yield self.samples.pixels[[position]], np.asarray(self.samples.labels[[position]], dtype=np.int64)
        finally:
            self.num_closed += 1
