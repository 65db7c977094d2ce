"""Runs the frozen stages, and remembers what they give where that fits into memory or is stored already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.errors import DataError, StorageError
from orchestrator.finetune.classifier import EVALUATION_BATCH, preprocess
from orchestrator.finetune.contracts import (
    Activations,
    Inputs,
    Layout,
    Samples,
    StoredRows,
    StoredType,
    TrainingSettings,
)
from orchestrator.finetune.distributed import gather_rows, rank, rows_of_rank, sum_over_ranks
from orchestrator.finetune.views import vary
from orchestrator.records import BackboneSpec

__all__ = ["Layout", "Prefix", "SuffixInputs", "autocast", "layouts", "prefix_rows", "suffix_inputs"]

TORCH_TYPES: Mapping[StoredType, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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

    def take(self, positions: NDArray[np.int64], draw: int) -> Tensor:
        """Give the inputs of these samples, in this order, as they are in a draw, on the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Run the prefix whenever samples are taken; `is_varied` says that draws differ."""

    samples: Samples
    prefix: Prefix
    is_varied: bool

    def take(self, positions: NDArray[np.int64], draw: int) -> Tensor:
        """Give the inputs of these samples, in this order, as they are in a draw, on the device."""
        return self.prefix(self.pixels(positions, draw))

    def pixels(self, positions: NDArray[np.int64], draw: int) -> NDArray[np.uint8]:
        """Give the pixels of these samples as they are in a draw."""
        settings = self.prefix.settings
        pixels = self.samples.take(positions)
        keys = self.samples.keys[positions]
        return vary(pixels, keys, draw, settings.augment, settings.order_seed) if self.is_varied else pixels


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """Hold the prefix's outputs of all samples as rows in the order they have in memory, a tensor for each view."""

    views: Sequence[Tensor]
    layout: Layout

    def take(self, positions: NDArray[np.int64], draw: int) -> Tensor:
        """Give the inputs of these samples, in this order, as they are in a draw, on the device."""
        rows = self.views[draw % len(self.views)]
        return self.layout.unpack(rows[torch.from_numpy(positions).to(rows.device)])


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Read the prefix's outputs from where they are stored, in the type that the prefix would give."""

    rows: StoredRows
    layout: Layout
    stored: StoredType
    given: torch.dtype
    device: str

    def take(self, positions: NDArray[np.int64], draw: int) -> Tensor:
        """Give the inputs of these samples, in this order, as they are in a draw, on the device."""
        rows = from_stored(self.rows.take(positions, draw), self.stored)
        if self.device.startswith("cuda"):
            rows = rows.pin_memory().to(self.device, non_blocking=True)
        return self.layout.unpack(rows.to(self.given))


@dataclass(frozen=True, kw_only=True)
class SuffixSources:
    """Hold what the suffix is fed from: training samples, unless they are a stream, and validation samples."""

    train: SuffixInputs | None
    validation: SuffixInputs
    name: Inputs


def suffix_inputs(
    prefix: Prefix, train: Samples | None, validation: Samples, activations: Activations | None
) -> SuffixSources:
    """Take stored activations where there are some; else run the prefix once if its outputs fit into memory.

    What is remembered is bounded by `activation_bytes`; the rest is computed whenever it is needed. Without frozen
    stages nothing is remembered: the outputs would be the images. Nor are training samples that every epoch draws
    afresh. Stored activations are left alone then, and where they are of another depth. Raises what checking them
    raises.
    """
    settings = prefix.settings
    if settings.augment.draws_afresh:
        activations = None
    if activations is not None and train is not None and activations.depth == len(prefix.stages):
        return _stored(prefix, train, validation, activations)
    example = prefix.blank()
    is_varied = settings.augment.varies
    views = settings.augment.views if is_varied else 1
    row_bytes = example.numel() * example.element_size()
    fixed = [Computed(samples=validation, prefix=prefix, is_varied=False)]
    varied = [] if train is None else [Computed(samples=train, prefix=prefix, is_varied=is_varied)]
    rows_needed = len(validation) + sum(len(source.samples) * max(1, views) for source in varied)
    if not len(prefix.stages) or rows_needed * row_bytes > settings.activation_bytes:
        return SuffixSources(train=varied[0] if varied else None, validation=fixed[0], name="pixels")
    kept = _remember(fixed[0], 1, example)
    if not varied:
        return SuffixSources(train=None, validation=kept, name="memory")
    if views == 0:
        return SuffixSources(train=varied[0], validation=kept, name="pixels")
    return SuffixSources(train=_remember(varied[0], views, example), validation=kept, name="memory")


def kept_inputs(prefix: Prefix, samples: Samples, *, most_bytes: int, most_views: int | None = None) -> SuffixInputs:
    """Run the prefix over samples once if its outputs fit into `most_bytes`, else whenever they are taken.

    Ranks divide what is computed once. Without frozen stages, or where every epoch draws afresh, nothing is kept. Of
    fixed views the first `most_views` are, by default all.
    """
    settings = prefix.settings
    is_varied = settings.augment.varies
    views = settings.augment.views if is_varied else 1
    views = views if most_views is None else min(views, most_views)
    computed = Computed(samples=samples, prefix=prefix, is_varied=is_varied)
    example = prefix.blank()
    needed = len(samples) * views * example.numel() * example.element_size()
    if not len(prefix.stages) or views == 0 or needed > most_bytes:
        return computed
    return _remember(computed, views, example)


def remembered_bytes(sources: SuffixSources) -> int:
    """Count the bytes of the outputs that sources hold on the device."""
    held = [inputs for inputs in (sources.train, sources.validation) if isinstance(inputs, Remembered)]
    return sum(view.nbytes for inputs in held for view in inputs.views)


def open_sources(
    prefix: Prefix, train: Samples | None, validation: Samples, activations: Activations | None
) -> tuple[SuffixSources, str | None]:
    """Give the suffix's inputs, computed here where stored activations cannot be read, and then the reason.

    Ranks decide together: what they compute they divide, so each one has to.
    """
    if activations is None:
        return suffix_inputs(prefix, train, validation, None), None
    sources, reason = None, None
    try:
        sources = suffix_inputs(prefix, train, validation, activations)
    except (DataError, StorageError, OSError) as error:
        reason = str(error)
    failures = sum_over_ranks(torch.tensor(float(sources is None), device=prefix.settings.device))
    if sources is not None and failures == 0:
        return sources, None
    note = f"stored activations could not be read: {reason or 'on another worker'}"
    return suffix_inputs(prefix, train, validation, None), note


def _stored(prefix: Prefix, train: Samples, validation: Samples, activations: Activations) -> SuffixSources:
    # Not every stage gives bfloat16 under autocast.
    given, settings = prefix.blank().dtype, prefix.settings

    def source(rows: StoredRows) -> Stored:
        return Stored(
            rows=rows, layout=activations.layout, stored=activations.dtype, given=given, device=settings.device
        )

    sources = SuffixSources(
        train=source(activations.train), validation=source(activations.validation), name="activations"
    )
    # A store that cannot be read says so here, before the training begins.
    activations.train.check()
    activations.validation.check()
    return sources


def _remember(source: Computed, views: int, example: Tensor) -> Remembered:
    layout = Layout.of(example)
    return Remembered(views=[_remember_view(source, view, layout, example) for view in range(views)], layout=layout)


def _remember_view(source: Computed, view: int, layout: Layout, example: Tensor) -> Tensor:
    count = len(source.samples)
    rows = torch.empty(count, example[0].numel(), dtype=example.dtype, device=example.device)
    mine = np.arange(count, dtype=np.int64)[rows_of_rank(count, rank())]
    for start in range(0, len(mine), EVALUATION_BATCH):
        positions = mine[start : start + EVALUATION_BATCH]
        rows[positions[0] : positions[-1] + 1] = layout.pack(source.take(positions, view))
    return gather_rows(rows)


def layouts(
    stages: nn.Sequential, spec: BackboneSpec, settings: TrainingSettings, depths: Sequence[int]
) -> dict[int, Layout]:
    """Give the layout of the outputs after each of these numbers of stages."""
    blank = np.zeros((1, spec.image_size, spec.image_size, 3), dtype=np.uint8)
    return {depth: Layout.of(outputs) for depth, outputs in _outputs(stages, blank, depths, spec, settings).items()}


def prefix_rows(
    stages: nn.Sequential,
    pixels: NDArray[np.uint8],
    depths: Sequence[int],
    spec: BackboneSpec,
    settings: TrainingSettings,
    dtypes: Mapping[int, StoredType],
) -> dict[int, NDArray[Any]]:
    """Run pixels [n, S, S, 3] through the stages once, and give the rows [n, d] after each wanted number of them.

    The deepest pass yields the shallower outputs. Rows have the type they are stored in, bfloat16 as bits.
    """
    found: dict[int, list[NDArray[Any]]] = {depth: [] for depth in depths}
    for start in range(0, len(pixels), EVALUATION_BATCH):
        batch = pixels[start : start + EVALUATION_BATCH]
        for depth, outputs in _outputs(stages, batch, depths, spec, settings).items():
            found[depth].append(to_stored(Layout.of(outputs).pack(outputs), dtypes[depth]))
    return {depth: np.concatenate(parts) for depth, parts in found.items()}


def _outputs(
    stages: nn.Sequential,
    pixels: NDArray[np.uint8],
    depths: Sequence[int],
    spec: BackboneSpec,
    settings: TrainingSettings,
) -> dict[int, Tensor]:
    stages.eval()
    found: dict[int, Tensor] = {}
    with torch.no_grad(), autocast(settings):
        outputs = preprocess(pixels, spec, settings.device)
        for depth, stage in enumerate(stages, start=1):
            outputs = stage(outputs)
            if depth in depths:
                found[depth] = outputs
            if depth == max(depths):
                break
    return found


def to_stored(rows: Tensor, dtype: StoredType) -> NDArray[Any]:
    """Turn rows on any device into an array of the type they are stored in."""
    narrowed = rows.to(TORCH_TYPES[dtype]).cpu()
    array: NDArray[Any] = narrowed.view(torch.int16).numpy().view(np.uint16) if dtype == "bf16" else narrowed.numpy()
    return array


def from_stored(rows: NDArray[Any], dtype: StoredType) -> Tensor:
    """Turn stored rows into a tensor of the type they were stored in."""
    if dtype == "bf16":
        return torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(rows)


def round_trip_error(
    stages: nn.Sequential,
    suffix: nn.Module,
    pixels: NDArray[np.uint8],
    spec: BackboneSpec,
    settings: TrainingSettings,
    dtype: StoredType,
) -> float:
    """Measure what storing the stages' outputs in a type changes in the suffix's, relative to their spread.

    The largest absolute change over the standard deviation of the outputs; 0 where the stages give that type anyway.
    """
    prefix = Prefix(stages=stages, spec=spec, settings=settings)
    outputs = prefix(pixels)
    restored = from_stored(to_stored(outputs.flatten(1), dtype), dtype).to(outputs.device, outputs.dtype)
    with torch.no_grad(), autocast(settings):
        exact = suffix.eval()(outputs).float()
        changed = suffix(restored.view_as(outputs)).float()
    return float((exact - changed).abs().max() / exact.std().clamp_min(1e-12))


def autocast(settings: TrainingSettings) -> torch.autocast:
    """Give the context in which forward passes have the precision of the settings."""
    device_type = torch.device(settings.device).type
    dtype = TORCH_TYPES[settings.precision]
    return torch.autocast(device_type, dtype=dtype, enabled=settings.precision != "fp32")
