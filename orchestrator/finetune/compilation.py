"""Compiles the trained stages with torch.compile, and measures what that costs and brings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.contracts import Samples, TrainingSettings
from orchestrator.finetune.prefix import Prefix
from orchestrator.finetune.probe import example_batch, median_s, training_step
from orchestrator.records import BackboneSpec, CompiledCost


def compiled(suffix: nn.Module) -> Callable[..., Tensor]:
    """Wrap a module so that it is compiled when it is first called; both share their parameters."""
    wrapped: Callable[..., Tensor] = torch.compile(suffix)
    return wrapped


def measure_compiled(
    classifier: Classifier,
    spec: BackboneSpec,
    settings: TrainingSettings,
    samples: Samples,
    *,
    depths: Sequence[int],
    batch_size: int,
) -> dict[int, CompiledCost]:
    """Time compiling the suffix of each freeze depth, and a training step of what comes out.

    Compiling counts with two sizes of batches, because the last of an epoch is smaller. Depths at which this machine
    cannot compile are left out. The classifier's weights are changed: give a copy.
    """
    _, pixels, labels = example_batch(samples, batch_size, settings.device)
    classifier.to(settings.device).to(memory_format=torch.channels_last)
    found = {}
    for depth in depths:
        inputs = Prefix(stages=classifier.prefix(depth).eval(), spec=spec, settings=settings)(pixels)
        step = training_step(classifier, depth, inputs, labels, settings, wrap=compiled)
        last = training_step(classifier, depth, inputs[:-1], labels[:-1], settings, wrap=compiled)
        started = time.perf_counter()
        try:
            step()
            last()
        except (RuntimeError, ImportError, OSError):  # no compiler, or one that does not know this device or module
            continue
        compile_s = time.perf_counter() - started
        found[depth] = CompiledCost(train_s=median_s(step, settings.device) / batch_size, compile_s=compile_s)
    return found
