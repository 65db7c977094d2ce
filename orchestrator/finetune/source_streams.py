"""Draws from a source that is too large to be held: each rank from a stream of its own, which never ends."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.errors import TrainingError
from orchestrator.finetune.distributed import rank, world_size
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.prefix import Prefix
from orchestrator.finetune.steps import vary_streamed

LabelledPixels = tuple[NDArray[np.uint8], NDArray[np.int64]]

# Keeps the variants of source samples apart from those of target samples with the same running numbers.
_FIRST_NUMBER = 1 << 60


class SourceStream(Protocol):
    """Give this rank's samples of a source, pass after pass without end.

    A rank's samples are its own, so that no rank waits for another where a pass ends.
    """

    def count_labels(self) -> LabelCounts:
        """Count the labels of all ranks' samples."""
        ...

    def draws(self, first: int) -> Generator[LabelledPixels]:
        """Give pixels [n, S, S, 3] and labels [n] in pieces of any size, from this rank's draw number `first` on.

        Draws are counted from 0, over all passes. Each pass has every sample of the rank once.
        """
        ...


class StreamedDraws:
    """Give a rank its part of the draws beside each batch, from its own stream.

    Of all draws, numbered over the whole training, ranks have those by turns: however few a batch has, over a training
    every rank draws equally many, or one more. A resumed training opens the stream where it was left. What is drawn
    goes through the frozen stages whenever it is drawn.
    """

    def __init__(self, stream: SourceStream, prefix: Prefix) -> None:
        self._stream = stream
        self._prefix = prefix
        self._open: Generator[LabelledPixels] | None = None
        self._next = 0
        self._rest: list[LabelledPixels] = []

    def take(self, first: int, last: int, epoch: int) -> tuple[Tensor, Tensor] | None:
        """Give the suffix's inputs and the labels of this rank's among the draws from `first` to before `last`.

        None where it has none of them.
        """
        size, settings = world_size(), self._prefix.settings
        start, end = (len(range(rank(), bound, size)) for bound in (first, last))
        if start == end:
            return None
        pixels, labels = self._read(start, end - start)
        varied = vary_streamed(pixels, _FIRST_NUMBER + start, epoch, settings)
        return self._prefix(varied), torch.from_numpy(labels).to(settings.device)

    def close(self) -> None:
        """Let go of the stream; what is drawn next opens it anew."""
        if self._open is not None:
            self._open.close()
        self._open, self._rest = None, []

    def _read(self, first: int, count: int) -> LabelledPixels:
        """Give the draws of this rank from number `first` on, which follow those before unless a training resumes."""
        if self._open is None or first != self._next:
            self.close()
            self._open = self._stream.draws(first)
        held, num_held = self._rest, sum(len(labels) for _, labels in self._rest)
        while num_held < count:
            piece = next(self._open, None)
            if piece is None:
                raise TrainingError(
                    "a source that is streamed must never end",
                    value=f"{num_held} of {count} samples",
                    remedy="Check the stream of the source's data.",
                )
            held.append(piece)
            num_held += len(piece[1])
        pixels, labels = (np.concatenate(parts) for parts in zip(*held, strict=True))
        self._rest = [(pixels[count:], labels[count:])]
        self._next = first + count
        return pixels[:count], labels[:count]
