"""Measures on this machine what the parts of a training cost, so that a rule can decide what is worth keeping."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.finetune.classifier import EVALUATION_BATCH, Classifier, preprocess
from orchestrator.finetune.contracts import Samples, StoredType, TrainingSettings
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.multi_label import is_multi_label
from orchestrator.finetune.optimizers import create_optimizer
from orchestrator.finetune.prefix import TORCH_TYPES, autocast
from orchestrator.finetune.tasks import strata
from orchestrator.records import BackboneSpec, CostFigures, Hyperparameters

_FILE_BYTES = 32 * 2**20
_MOST_REPEATS = 5
_BUDGET_S = 0.05


def measure(
    classifier: Classifier,
    spec: BackboneSpec,
    settings: TrainingSettings,
    samples: Samples,
    *,
    batch_size: int,
    directory: Path,
    decode: Callable[[], None] | None = None,
    stored: StoredType = "fp32",
) -> CostFigures:
    """Time the parts of a training on one batch of `samples`, and reading and writing a file in `directory`.

    Each part is warmed up once and then repeated for about a twentieth of a second, five times at most; the median
    counts. `decode` decodes one encoded image; `stored` is the type in which activations would be kept. The
    classifier's weights are changed: give a copy.
    """
    positions, pixels, labels = example_batch(samples, batch_size, settings.device)
    classifier.to(settings.device).to(memory_format=torch.channels_last)
    outputs = _stage_outputs(classifier, pixels, spec, settings)
    depths = range(classifier.backbone.num_stages + 1)
    read_rate, write_rate = _bandwidth(directory)
    return CostFigures(
        decode_s=0.0 if decode is None else median_s(decode, "cpu"),
        read_pixels_s=median_s(lambda: samples.take(positions), "cpu") / batch_size,
        forward_s=tuple(
            _forward_s(stage, outputs[depth], settings) / batch_size
            for depth, stage in enumerate(classifier.backbone.stages)
        ),
        train_s=tuple(_train_s(classifier, depth, outputs[depth], labels, settings) / batch_size for depth in depths),
        validate_s=tuple(
            _forward_s(classifier.suffix(depth), outputs[depth], settings) / batch_size for depth in depths
        ),
        activation_bytes=tuple(
            0 if depth == 0 else outputs[depth][0].numel() * TORCH_TYPES[stored].itemsize for depth in depths
        ),
        read_bytes_per_s=read_rate,
        write_bytes_per_s=write_rate,
    )


def example_batch(
    samples: Samples, batch_size: int, device: str
) -> tuple[NDArray[np.int64], NDArray[np.uint8], Tensor]:
    """Give positions [n] of samples, repeated where there are too few, their pixels [n, S, S, 3] and labels."""
    positions = np.arange(batch_size, dtype=np.int64) % len(samples)
    # Indicators of labels do as probabilities: what a step takes does not depend on its targets.
    labels = samples.labels if is_multi_label(samples.labels) else strata(samples.labels)
    return positions, samples.take(positions), torch.from_numpy(labels[positions]).to(device)


def _stage_outputs(
    classifier: Classifier, pixels: NDArray[np.uint8], spec: BackboneSpec, settings: TrainingSettings
) -> list[Tensor]:
    """Give the images and then the outputs of each stage."""
    outputs = [preprocess(pixels, spec, settings.device)]
    for stage in classifier.backbone.stages:
        outputs.append(_forward(stage, outputs[-1], settings))
    return outputs


def _forward(module: nn.Module, inputs: Tensor, settings: TrainingSettings) -> Tensor:
    with torch.no_grad(), autocast(settings):
        outputs: Tensor = module.eval()(inputs)
    return outputs


def _forward_s(module: nn.Module, inputs: Tensor, settings: TrainingSettings) -> float:
    return median_s(lambda: _forward(module, inputs, settings), settings.device)


def measure_peak(
    classifier: Classifier,
    spec: BackboneSpec,
    settings: TrainingSettings,
    samples: Samples,
    *,
    batch_size: int,
    copies: int = 1,
) -> int | None:
    """Measure the bytes of GPU memory that a training takes at most, beside the outputs of frozen stages it keeps.

    Trains on a batch with nothing frozen and evaluates one, in a process that holds nothing else on the GPU; to that
    come the `copies` of its weights that a training keeps: one of its best epoch, and what else it needs. Batches whose
    gradients are accumulated follow each other, so that one counts. None on a CPU, and where it does not fit. The
    classifier's weights are changed: give a copy.
    """
    if not settings.device.startswith("cuda"):
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(settings.device)
    try:
        classifier.to(settings.device).to(memory_format=torch.channels_last)
        _, pixels, labels = example_batch(samples, max(batch_size, EVALUATION_BATCH), settings.device)
        inputs = preprocess(pixels, spec, settings.device)
        step = training_step(classifier, 0, inputs[:batch_size], labels[:batch_size], settings)
        # The second step finds the optimizer's state in memory.
        step()
        step()
        _forward(classifier.suffix(0), inputs[:EVALUATION_BATCH], settings)
    except torch.OutOfMemoryError:
        return None
    return int(torch.cuda.max_memory_allocated(settings.device)) + copies * _weight_bytes(classifier)


def _weight_bytes(classifier: Classifier) -> int:
    """Count the bytes of a classifier's weights, statistics of BatchNorm included."""
    return sum(tensor.numel() * tensor.element_size() for tensor in classifier.state_dict().values())


def _train_s(classifier: Classifier, depth: int, inputs: Tensor, labels: Tensor, settings: TrainingSettings) -> float:
    """Time a training step of the suffix."""
    return median_s(training_step(classifier, depth, inputs, labels, settings), settings.device)


def training_step(
    classifier: Classifier,
    depth: int,
    inputs: Tensor,
    labels: Tensor,
    settings: TrainingSettings,
    *,
    wrap: Callable[[nn.Module], Callable[..., Tensor]] = lambda suffix: suffix,
) -> Callable[[], None]:
    """Give a training step of the suffix, called as `wrap` gives it.

    The tiny rate leaves the weights all but as they are.
    """
    _, suffix = freeze(classifier, depth)
    recipe = Hyperparameters(freeze_depth=depth, learning_rate=1e-12, epochs=1, batch_size=max(2, len(labels)))
    optimizer = create_optimizer(suffix.parameters(), recipe)
    suffix.set_mode(depth, settings.batch_norm)
    called = wrap(suffix)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(settings):
            logits = called(inputs)
        torch.autograd.backward(cross_entropy(logits.float(), labels))
        optimizer.step()

    return step


def _bandwidth(directory: Path) -> tuple[float, float]:
    """Give the bytes a second at which a file is read through a map and copied in small rows, and written."""
    directory.mkdir(parents=True, exist_ok=True)
    content = np.random.default_rng(0).integers(0, 256, _FILE_BYTES, dtype=np.uint8)
    with NamedTemporaryFile(dir=directory, prefix=".probe-", suffix=".npy") as file:

        def write() -> None:
            np.save(file.name, content.reshape(-1, 2**14), allow_pickle=False)

        write_s = median_s(write, "cpu")
        rows = np.load(file.name, mmap_mode="r", allow_pickle=False)
        order = np.random.default_rng(1).permutation(len(rows))

        def read() -> None:
            taken = np.empty((64, rows.shape[1]), dtype=rows.dtype)
            for start in range(0, len(order), 64):
                for index, row in enumerate(order[start : start + 64].tolist()):
                    taken[index] = rows[row]

        read_s = median_s(read, "cpu")
    return _FILE_BYTES / read_s, _FILE_BYTES / write_s


def median_s(call: Callable[[], object], device: str) -> float:
    """Time a call: warmed up once, then the median of at most five for about a twentieth of a second."""
    _timed(call, device)
    found: list[float] = []
    while len(found) < _MOST_REPEATS and (not found or sum(found) < _BUDGET_S):
        found.append(_timed(call, device))
    return statistics.median(found)


def _timed(call: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
