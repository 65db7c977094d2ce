"""Probes what a training costs where trials will run: in this process, or on a GPU in a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from orchestrator import storage
from orchestrator.cluster.failures import translated
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.cluster.workers import Workbench, use_threads, worker_device
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.compilation import measure_compiled
from orchestrator.finetune.contracts import StoredType, TrainingSettings
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.prefix import round_trip_error
from orchestrator.finetune.probe import measure, measure_peak
from orchestrator.records import CompiledCost, CostFigures

_BATCH = 32


def probe_costs(
    workbench: Workbench,
    samples: Mapping[str, GroupSamples],
    resources: Mapping[str, float],
    *,
    directory: str,
    use_gpu: bool,
    largest_batch: int,
    copies_of_weights: int,
    stall_timeout_s: float,
    dtype: StoredType = "fp32",
) -> tuple[CostFigures, dict[int, float]]:
    """Measure what one trial's worker takes for each part of a training, over the largest group's samples.

    On a GPU also the memory that it takes at most, with `largest_batch` samples in a batch, and `copies_of_weights`
    kept beside those that are trained.
    Also gives, for each freeze depth, the error of storing its activations in `dtype`. On CPUs this process measures:
    it has loaded what a task would load again for seconds. Raises WaitTimeoutError when no GPU becomes free.
    """
    arguments = (
        workbench,
        _largest(samples),
        dict(resources),
        directory,
        use_gpu,
        largest_batch,
        copies_of_weights,
        dtype,
    )
    if not use_gpu:
        return _probe(*arguments)
    found: tuple[CostFigures, dict[int, float]] = _on_gpu(_probe, arguments, resources, stall_timeout_s)
    return found


def probe_compiled(
    workbench: Workbench,
    samples: Mapping[str, GroupSamples],
    resources: Mapping[str, float],
    *,
    depths: Sequence[int],
    stall_timeout_s: float,
) -> dict[int, CompiledCost]:
    """Measure, on a GPU, what torch.compile does to the suffixes of these freeze depths.

    Raises WaitTimeoutError when no GPU becomes free.
    """
    arguments = (workbench, _largest(samples), dict(resources), tuple(depths))
    found: dict[int, CompiledCost] = _on_gpu(_probe_compiled, arguments, resources, stall_timeout_s)
    return found


def _largest(samples: Mapping[str, GroupSamples]) -> GroupSamples:
    return max(samples.values(), key=lambda found: len(found.train))


def _on_gpu(
    probe: Callable[..., Any], arguments: tuple[object, ...], resources: Mapping[str, float], stall_timeout_s: float
) -> Any:
    task: Any = ray.remote(num_cpus=resources.get("CPU", 1.0), num_gpus=resources.get("GPU", 1.0), max_calls=1)(probe)
    with translated("the probe"), Watchdog("the probe", wanted=resources, stall_timeout_s=stall_timeout_s):
        return ray.get(task.remote(*arguments))


def _probe_compiled(
    workbench: Workbench, samples: GroupSamples, resources: dict[str, float], depths: tuple[int, ...]
) -> dict[int, CompiledCost]:
    use_threads(resources.get("CPU", 1.0))
    return measure_compiled(
        workbench.classifier(samples.class_counts),
        workbench.backbone.spec,
        workbench.settings(worker_device(True)),
        samples.train,
        depths=depths,
        batch_size=_BATCH,
    )


def _probe(
    workbench: Workbench,
    samples: GroupSamples,
    resources: dict[str, float],
    directory: str,
    use_gpu: bool,
    largest_batch: int,
    copies_of_weights: int,
    dtype: StoredType,
) -> tuple[CostFigures, dict[int, float]]:
    use_threads(resources.get("CPU", 1.0))
    settings = workbench.settings(worker_device(use_gpu))
    classifier = workbench.classifier(samples.class_counts)
    figures = measure(
        classifier,
        workbench.backbone.spec,
        settings,
        samples.train,
        batch_size=_BATCH,
        directory=_directory(directory),
        stored=dtype,
    )
    peak = measure_peak(
        classifier,
        workbench.backbone.spec,
        settings,
        samples.train,
        batch_size=largest_batch,
        copies=copies_of_weights,
    )
    if peak is not None:
        found = {"peak_bytes": peak + settings.activation_bytes, "device_bytes": torch.cuda.mem_get_info()[1]}
        figures = figures.model_copy(update=found)
    return figures, _errors(workbench, classifier, samples, settings, dtype) if dtype != "fp32" else {}


def _errors(
    workbench: Workbench, classifier: Classifier, samples: GroupSamples, settings: TrainingSettings, dtype: StoredType
) -> dict[int, float]:
    pixels = samples.train.take(np.arange(min(_BATCH, len(samples.train))))
    errors = {}
    for depth in range(1, workbench.backbone.num_stages + 1):
        prefix, suffix = freeze(classifier, depth)
        errors[depth] = round_trip_error(prefix, suffix, pixels, workbench.backbone.spec, settings, dtype)
    return errors


def _directory(uri: str) -> Path:
    """Give the directory whose disk rows will be read from: that of the cache, or of this node's copies."""
    return storage.local_path(uri) if storage.is_local(uri) else storage.scratch_directory("activations")
