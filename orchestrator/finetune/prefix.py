"""Runs the frozen stages, and remembers what they give where that fits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.finetune.classifier import EVALUATION_BATCH, preprocess
from orchestrator.finetune.contracts import Samples, TrainingSettings
from orchestrator.finetune.distributed import gather_rows, rank, rows_of_rank
from orchestrator.records import BackboneSpec


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Turn pixels into what the suffix takes, by the frozen stages, which may be none."""

    stages: nn.Sequential
    spec: BackboneSpec
    settings: TrainingSettings

    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Run pixels [n, S, S, 3] through the stages, on the device and at the precision of the settings."""
        with torch.no_grad(), autocast(self.settings):
            outputs: Tensor = self.stages(preprocess(pixels, self.spec, self.settings.device))
        return outputs

    def blank(self) -> Tensor:
        """Give the output for one black image."""
        return self(np.zeros((1, self.spec.image_size, self.spec.image_size, 3), dtype=np.uint8))


class SuffixInputs(Protocol):
    """Give what the suffix takes for samples, by position."""

    def take(self, positions: NDArray[np.int64]) -> Tensor:
        """Give the inputs of these samples, in this order, on the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Run the prefix whenever samples are taken."""

    samples: Samples
    prefix: Prefix

    def take(self, positions: NDArray[np.int64]) -> Tensor:
        """Give the inputs of these samples, in this order, on the device."""
        return self.prefix(self.samples.take(positions))


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """Hold the prefix's outputs of all samples as rows in the order they have in memory."""

    rows: Tensor
    layout: Layout

    def take(self, positions: NDArray[np.int64]) -> Tensor:
        """Give the inputs of these samples, in this order, on the device."""
        return self.layout.unpack(self.rows[torch.from_numpy(positions).to(self.rows.device)])


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Say how one sample's output lies in memory: its shape, and whether channels come last.

    A suffix that got another layout than the prefix gave would run slower and round differently.
    """

    shape: tuple[int, ...]
    channels_last: bool

    @classmethod
    def of(cls, outputs: Tensor) -> Layout:
        """Read the layout off a batch of outputs."""
        channels_last = (
            outputs.dim() == 4
            and not outputs.is_contiguous()
            and outputs.is_contiguous(memory_format=torch.channels_last)
        )
        return cls(shape=tuple(outputs.shape[1:]), channels_last=channels_last)

    def pack(self, outputs: Tensor) -> Tensor:
        """Turn outputs [n, ...] into rows [n, d]."""
        return (outputs.permute(0, 2, 3, 1) if self.channels_last else outputs).flatten(1)

    def unpack(self, rows: Tensor) -> Tensor:
        """Turn rows [n, d] into outputs [n, ...]."""
        if not self.channels_last:
            return rows.reshape(-1, *self.shape)
        channels, height, width = self.shape
        return rows.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def suffix_inputs(prefix: Prefix, sources: Sequence[Samples]) -> list[SuffixInputs]:
    """Run the prefix over all samples once if the outputs fit into `activation_bytes`, else whenever needed.

    Without frozen stages nothing is remembered: the outputs would be the images.
    """
    example = prefix.blank()
    bytes_needed = sum(map(len, sources)) * example.numel() * example.element_size()
    if not len(prefix.stages) or bytes_needed > prefix.settings.activation_bytes:
        return [Computed(samples=samples, prefix=prefix) for samples in sources]
    return [_remember(prefix, samples, example) for samples in sources]


def _remember(prefix: Prefix, samples: Samples, example: Tensor) -> Remembered:
    layout = Layout.of(example)
    rows = torch.empty(len(samples), example[0].numel(), dtype=example.dtype, device=example.device)
    mine = np.arange(len(samples), dtype=np.int64)[rows_of_rank(len(samples), rank())]
    for start in range(0, len(mine), EVALUATION_BATCH):
        positions = mine[start : start + EVALUATION_BATCH]
        rows[positions[0] : positions[-1] + 1] = layout.pack(prefix(samples.take(positions)))
    return Remembered(rows=gather_rows(rows), layout=layout)


def autocast(settings: TrainingSettings) -> torch.autocast:
    """Give the context in which forward passes have the precision of the settings."""
    device_type = torch.device(settings.device).type
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
