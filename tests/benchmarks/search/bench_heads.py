"""Measures heads trained in one stack against the same heads trained one after another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from command import note
from figures import Figure
from numpy.typing import NDArray
from peer_training import VALIDATION_BATCH, build_network, normalise
from protocol import BATCH_SIZE, NUM_STAGES, PhotoTask, Protocol
from torch import Tensor, nn
from workplace import Workplace

from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.heads import Features, FeatureSplit, HeadResult, train_heads
from orchestrator.finetune.loop import TrainingSettings, fine_tune
from orchestrator.records import BackboneSpec, Hyperparameters

SETTINGS = TrainingSettings(seed=0, batch_norm="frozen", precision="fp32", device="cpu", metric="val_accuracy")
# One image of 1 x 1 whose three bytes say which sample it is.
NUMBERED = BackboneSpec(
    name="features", image_size=1, resize="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class NumberedSamples:
    """Give, in place of pixels, the numbers of samples: what `fine_tune` can hand to a stage that holds features."""

    labels: NDArray[np.int64]
    first: int

    @property
    def keys(self) -> NDArray[np.uint64]:
        return np.arange(self.first, self.first + len(self.labels), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        numbers = positions + self.first
        digits = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=1)
        return digits.astype(np.uint8).reshape(-1, 1, 1, 3)


class FeatureLookup(nn.Module):
    """Turn numbered images into the features that were kept for them: a frozen stage that costs next to nothing."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)

    def forward(self, images: Tensor) -> Tensor:
        digits = (images.flatten(1) * 255).round().long()
        rows: Tensor = self.get_buffer("rows")[digits @ torch.tensor([1, 256, 65536])]
        return rows


def measure_heads(place: Workplace) -> Iterator[Figure]:
    """Train heads of different rates on the same features in memory, in one stack and by `fine_tune` one by one."""
    protocol = place.protocol
    torch.set_num_threads(place.threads)
    train, validation = (_features(place.task, split) for split in ("train", "val"))
    classifier = new_classifier(
        Backbone([FeatureLookup(torch.cat([train.rows, validation.rows]))], feature_dim=train.rows.shape[1], name="-"),
        place.task.num_classes,
        seed=0,
    )
    runs = _runs(protocol)
    ours, peer = [], []
    for _ in range(protocol.repeats):
        started = time.perf_counter()
        together = train_heads(classifier.head, [FeatureSplit(train=[train], validation=validation)], runs, SETTINGS)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        alone = [_train_alone(place.task, classifier.backbone, train, validation, run) for run in runs]
        peer.append(time.perf_counter() - started)
        _require_same(together, alone)
        note(f"heads: {len(runs)} at once {ours[-1]:.2f} s, one by one {peer[-1]:.2f} s")
    yield Figure.of_medians("batched_heads", ours=ours, peer=peer, aim=5.0, unit="s")


def _features(task: PhotoTask, split: str) -> Features:
    network = build_network(task, NUM_STAGES, 0)
    features = network.features
    assert isinstance(features, nn.Module)
    pixels = torch.from_numpy(np.array(task.pixels(split)))
    with torch.no_grad():
        found = [features(normalise(batch)).mean(dim=(2, 3)) for batch in pixels.split(VALIDATION_BATCH)]
    return Features(rows=torch.cat(found), labels=task.labels(split))


def _runs(protocol: Protocol) -> list[Hyperparameters]:
    low, high = protocol.learning_rates
    return [
        Hyperparameters(
            freeze_depth=1,  # the lookup is the only stage
            learning_rate=float(rate),
            epochs=protocol.head_epochs,
            batch_size=BATCH_SIZE,
            optimizer="adam",
            weight_decay=0.0,
        )
        for rate in np.geomspace(low, high, protocol.heads)
    ]


def _train_alone(
    task: PhotoTask, backbone: Backbone, train: Features, validation: Features, run: Hyperparameters
) -> float:
    """Train one head by `fine_tune` and give its best accuracy."""
    result = fine_tune(
        new_classifier(backbone, task.num_classes, seed=0),
        NUMBERED,
        NumberedSamples(labels=train.labels, first=0),
        NumberedSamples(labels=validation.labels, first=len(train.labels)),
        run,
        SETTINGS,
    )
    return max(metrics.val_accuracy for metrics in result.history)


def _require_same(together: list[HeadResult], alone: list[float]) -> None:
    """Both must have learnt the same, or the comparison is of different work; rounding may flip an image or two."""
    for result, accuracy in zip(together, alone, strict=True):
        found = max(metrics.val_accuracy for metrics in result.history)
        if abs(found - accuracy) > 0.02:
            raise RuntimeError(f"a head must learn in a stack what it learns alone, got {found} and {accuracy}")
