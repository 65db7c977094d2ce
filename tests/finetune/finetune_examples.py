from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builders import class_image
from label_set_images import SHAPES, label_set_image
from numpy.typing import NDArray
from torch import nn

from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.contracts import Labels, TrainingSettings
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.tasks import NO_LABEL
from orchestrator.records import BackboneSpec, Hyperparameters

TINY = "finetune_examples:tiny_backbone"
LABELS = ("circle", "stripe", "cross")


def tiny_backbone(width: int = 8, dropout: float = 0.0) -> Backbone:
    """Three stages with BatchNorm and dropout: as a user would bring it."""
    stages = [
        nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Dropout2d(dropout),
        ),
        nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3), nn.BatchNorm2d(2 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
        ),
    ]
    return Backbone(stages, feature_dim=2 * width, name="tiny")


def a_spec(name: str = TINY, *, image_size: int = 16, **kwargs: bool | int | float | str) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        kwargs=kwargs,
        image_size=image_size,
        resize="crop",
        mean=(0.5, 0.4, 0.6),
        std=(0.2, 0.25, 0.3),
    )


@dataclass
class ArraySamples:
    """Samples in memory that remember which ones were taken."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.float32]
    taken: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def keys(self) -> NDArray[np.uint64]:
        return np.arange(len(self.labels), dtype=np.uint64)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.taken += positions.tolist()
        return self.pixels[positions]


def some_samples(count: int, *, seed: int = 0, image_size: int = 16, noisy_labels: bool = False) -> ArraySamples:
    """Images whose class can be seen, in turn of every class; or with labels that mean nothing."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % len(LABELS)
    pixels = np.stack([class_image(LABELS[index], rng, image_size) for index in truth])
    labels = rng.integers(0, len(LABELS), count) if noisy_labels else truth
    return ArraySamples(pixels, labels.astype(np.int64))


def two_tasks(count: int, *, seed: int = 0, missing: int = 0) -> ArraySamples:
    """Samples of which the second task is whether the class is the first one; the last `missing` do not say."""
    samples = some_samples(count, seed=seed)
    second = np.where(samples.labels == 0, 0, 1)
    second[count - missing :] = NO_LABEL
    return ArraySamples(samples.pixels, np.stack([samples.labels, second], axis=1))


def subsets_of_a_group(count: int, *, seed: int = 0) -> ArraySamples:
    """Samples of two subsets by turns of three: one knows three classes, the other two, which it numbers otherwise."""
    samples = some_samples(count, seed=seed)
    labels = np.full((count, 2), NO_LABEL)
    is_first = np.arange(count) // 3 % 2 == 0
    labels[is_first, 0] = samples.labels[is_first]
    labels[~is_first, 1] = np.where(samples.labels[~is_first] == 0, 1, 0)
    return ArraySamples(samples.pixels, labels)


def label_sets(count: int, *, seed: int = 0, image_size: int = 16) -> ArraySamples:
    """Images of any number of three shapes, each there in about half of them."""
    rng = np.random.default_rng(seed)
    indicators = (rng.uniform(size=(count, len(SHAPES))) < 0.5).astype(np.float32)
    named = [[name for name, there in zip(SHAPES, row, strict=True) if there] for row in indicators]
    return ArraySamples(np.stack([label_set_image(names, rng, image_size) for names in named]), indicators)


@dataclass
class ListStream:
    """One rank's batches, cut from samples at given sizes; the same ones every epoch."""

    samples: ArraySamples
    positions: list[list[int]]
    num_samples: int

    @property
    def no_labels(self) -> Labels:
        return self.samples.labels[:0]

    def count_labels(self) -> LabelCounts:
        return LabelCounts.of(self.samples.labels)

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        for batch in self.positions:
            yield self.samples.pixels[batch], self.samples.labels[batch]


@dataclass
class ImageListStream:
    """One rank's batches of images and keys, cut from samples at given positions; the same ones every epoch."""

    samples: ArraySamples
    positions: list[list[int]]
    num_samples: int

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint64]]]:
        for batch in self.positions:
            yield self.samples.pixels[batch], self.samples.keys[batch]


def some_hyperparameters(**changes: object) -> Hyperparameters:
    fields = {
        "freeze_depth": 1,
        "learning_rate": 3e-3,
        "epochs": 2,
        "batch_size": 8,
        "optimizer": "adam",
        "weight_decay": 0.0,
    }
    return Hyperparameters.model_validate({**fields, **changes})


def some_settings(**changes: object) -> TrainingSettings:
    fields: dict[str, Any] = {
        "seed": 3,
        "batch_norm": "frozen",
        "precision": "fp32",
        "device": "cpu",
        "metric": "val_accuracy",
    }
    return TrainingSettings(**{**fields, **changes})
