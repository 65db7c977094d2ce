"""The records of what training costs, and of what a search keeps to save it."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value


class CostFigures(Value):
    """Hold what a probe measured on one worker: seconds and bytes for one sample.

    `forward_s` has an entry for each stage: a frozen forward pass. `train_s` and `validate_s` have one for each
    freeze depth from 0 to the number of stages: a training step of the suffix, and its forward pass.
    `activation_bytes` likewise: what a sample's activations take at that depth in memory; depth 0 has none. Rates are
    in bytes a second. `decode_s` is decoding an encoded image; `read_pixels_s` taking a decoded one from the cache.
    `peak_bytes` is what a whole trial takes of the `device_bytes` of a GPU at most; None where there was none to tell.
    """

    decode_s: float
    read_pixels_s: float
    forward_s: tuple[float, ...]
    train_s: tuple[float, ...]
    validate_s: tuple[float, ...]
    activation_bytes: tuple[int, ...]
    read_bytes_per_s: float
    write_bytes_per_s: float
    peak_bytes: int | None = None
    device_bytes: int | None = None


class CompiledCost(Value):
    """Hold what torch.compile does to the suffix of one freeze depth: seconds for a sample, and to compile."""

    train_s: float
    compile_s: float


class DepthCost(Value):
    """Say where trials of one freeze depth took their inputs from, and what an epoch cost.

    Seconds are of one worker and one epoch over the samples of all groups: as predicted from a probe with and without
    kept activations, and as measured over the search's trials, None where none ran. `num_epochs` counts what ran
    likewise: an epoch over a tenth of the samples is 0.1. `saving_s` is what keeping was predicted to save over the
    search, its build deducted; negative where it would not have paid. `is_compiled` says that trials of the depth
    went through torch.compile.
    """

    depth: int
    source: Literal["activations", "pixels", "images"]
    predicted_epoch_s: float
    predicted_uncached_epoch_s: float
    measured_epoch_s: float | None = None
    num_epochs: float = 0.0
    stored_bytes: int = 0
    saving_s: float = 0.0
    is_compiled: bool = False


class SearchCosts(Record):
    """Hold what a search knew of costs, and what it measured.

    `computed` and `reused` count entries of the activation cache, `build_seconds` is the pass that filled it.
    """

    depths: list[DepthCost] = []
    computed: int = 0
    reused: int = 0
    build_seconds: float = 0.0
    probe_seconds: float = 0.0
