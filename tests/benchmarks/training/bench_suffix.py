"""Measures epochs of a suffix on a GPU against a bare loop over the same activations, kept on the device."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from command import note
from figures import Figure
from lengths import Lengths
from pacs_images import ArraySamples
from protocol import NUM_STAGES, PhotoTask
from torch import Tensor
from torch.nn.functional import cross_entropy
from workplace import Workplace

from orchestrator.finetune.classifier import EVALUATION_BATCH, Classifier, new_classifier, preprocess
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.freezing import Suffix, freeze
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.finetune.prefix import autocast
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters

DEPTH = NUM_STAGES // 2
BATCH = 128


def measure_suffix(place: Workplace, lengths: Lengths) -> Iterator[Figure]:
    """Train the stages behind depth 3, in bf16 where the GPU has it; without a GPU there is nothing to measure."""
    if not torch.cuda.is_available() and not lengths.on_cpu_too:
        note("suffix_vs_bare_loop: there is no GPU here")
        return
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    settings = TrainingSettings(
        seed=0, batch_norm="frozen", precision=precision, device=device, metric="val_accuracy",
        activation_bytes=64 * 2**30,
    )  # fmt: skip
    train, validation = (_samples(place.task, split, lengths.suffix_copies) for split in ("train", "val"))
    spec = BackboneSpec(
        name="mobilenet_v2", kwargs={"width_mult": 0.35}, image_size=train.pixels.shape[1], resize="crop",
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    backbone, _ = load_pretrained(str(place.weights), spec, seed=0)
    ours, peer = [], []
    for _ in range(lengths.repeats):
        classifiers = [new_classifier(backbone, place.task.num_classes, seed=0) for _ in range(2)]
        ours.append(_ours(classifiers[0], spec, train, validation, settings, lengths.suffix_epochs))
        peer.append(_bare_loop(classifiers[1], spec, train, validation, settings, lengths.suffix_epochs))
        note(f"images a second: ours {len(train) / ours[-1]:.0f}, bare loop {len(train) / peer[-1]:.0f}")
    yield Figure.of_medians("suffix_vs_bare_loop", ours=ours, peer=peer, aim=0.95, unit="s/epoch")


def _samples(task: PhotoTask, split: str, copies: int) -> ArraySamples:
    pixels = np.concatenate([np.array(task.pixels(split))] * copies)
    labels = np.concatenate([task.labels(split)] * copies)
    return ArraySamples(pixels=pixels, labels=labels, keys=np.arange(len(labels), dtype=np.uint64))


def _ours(
    classifier: Classifier,
    spec: BackboneSpec,
    train: ArraySamples,
    validation: ArraySamples,
    settings: TrainingSettings,
    epochs: int,
) -> float:
    """Give the mean seconds of an epoch after the first; its metrics are numbers of Python, so the device is done."""
    ends: list[float] = []

    def on_epoch(end: EpochEnd) -> None:
        ends.append(time.perf_counter())

    recipe = Hyperparameters(
        freeze_depth=DEPTH, learning_rate=1e-4, epochs=1 + epochs, batch_size=BATCH, optimizer="adam"
    )
    result = fine_tune(classifier, spec, train, validation, recipe, settings, on_epoch=on_epoch)
    if result.inputs != "memory":
        raise RuntimeError(f"activations must be held in memory, got {result.inputs}")
    return (ends[-1] - ends[0]) / epochs


def _bare_loop(
    classifier: Classifier,
    spec: BackboneSpec,
    train: ArraySamples,
    validation: ArraySamples,
    settings: TrainingSettings,
    epochs: int,
) -> float:
    classifier = classifier.to(settings.device).to(memory_format=torch.channels_last)
    prefix, suffix = freeze(classifier, DEPTH)
    inputs, judged = (_activations(prefix, spec, samples, settings) for samples in (train, validation))
    labels, truth = (torch.from_numpy(samples.labels).to(settings.device) for samples in (train, validation))
    optimizer = torch.optim.Adam(suffix.parameters(), lr=1e-4, fused=True)
    suffix.eval()
    ends = []
    for _ in range(1 + epochs):
        for batch in torch.randperm(len(labels), device=settings.device).split(BATCH):
            optimizer.zero_grad()
            with autocast(settings):
                logits = suffix(inputs[batch])
            cross_entropy(logits.float(), labels[batch]).backward()
            optimizer.step()
        _validate(suffix, judged, truth, settings)
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / epochs


def _activations(
    prefix: torch.nn.Module, spec: BackboneSpec, samples: ArraySamples, settings: TrainingSettings
) -> Tensor:
    found = []
    for start in range(0, len(samples), EVALUATION_BATCH):
        pixels = samples.pixels[start : start + EVALUATION_BATCH]
        with torch.no_grad(), autocast(settings):
            found.append(prefix(preprocess(pixels, spec, settings.device)))
    return torch.cat(found)


def _validate(suffix: Suffix, inputs: Tensor, truth: Tensor, settings: TrainingSettings) -> tuple[float, float]:
    """Give the mean loss and the accuracy, for which the device has to be done."""
    totals = torch.zeros(2, device=settings.device)
    with torch.no_grad(), autocast(settings):
        for batch, labels in zip(inputs.split(EVALUATION_BATCH), truth.split(EVALUATION_BATCH), strict=True):
            logits = suffix(batch).float()
            totals += torch.stack([cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum()])
    loss, accuracy = (totals / len(truth)).tolist()
    return loss, accuracy
