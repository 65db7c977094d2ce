"""Constructed sets for what the sources of methods report of them, and the trainings that are compared on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from builders import class_image
from finetune_examples import ArraySamples, a_spec, some_hyperparameters, some_settings
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from orchestrator.config import AugmentConfig
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import NO_AUGMENTATION
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, EpochMetrics

SEEDS = (0, 1, 2)
LABELS = ("circle", "stripe", "cross", "dot")
SPEC = a_spec(width=16)
HEAD_ONLY = 3


class Residual(nn.Module):
    """Add what a branch makes of a map to it; the branch can be skipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.skip = StochasticDepth(0.0, "row")

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = inputs + self.skip(self.branch(inputs))
        return found


def residual_backbone(width: int = 16) -> Backbone:
    """Two stages of two residual blocks behind a first one that makes maps of 8 x 8."""
    stages = [
        nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(Residual(width), Residual(width)),
        nn.Sequential(Residual(width), Residual(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)),
    ]
    return Backbone(stages, feature_dim=width, name="residual")


RESIDUAL = a_spec("effect_examples:residual_backbone")


def pictures(
    classes: NDArray[np.int64],
    *,
    seed: int,
    noise: float = 60.0,
    tint: float = 0.0,
    labels: tuple[str, ...] = LABELS,
) -> ArraySamples:
    """Draw an image for every class index; noise hides the classes, a tint is added to all images."""
    rng = np.random.default_rng([seed, len(classes)])
    clean = np.stack([class_image(labels[index], rng, SPEC.image_size) for index in classes]).astype(np.float64)
    pixels = clean + rng.normal(0, noise, size=clean.shape) + tint * np.array([1.0, -1.0, 0.5])
    return ArraySamples(pixels.clip(0, 255).astype(np.uint8), classes.astype(np.int64))


def in_turn(count: int) -> NDArray[np.int64]:
    return np.arange(count) % len(LABELS)


def held_out(seed: int, **how: Any) -> ArraySamples:
    return pictures(in_turn(200), seed=100 + seed, **how)


def fresh(seed: int, spec: BackboneSpec = SPEC) -> Classifier:
    backbone, _ = load_pretrained("none", spec, seed=seed)
    return new_classifier(backbone, len(LABELS), seed=seed)


def tuned(
    start: Classifier,
    train: ArraySamples,
    validation: ArraySamples,
    *,
    seed: int,
    batch_norm: str = "train",
    augment: AugmentConfig = NO_AUGMENTATION,
    companion: Companion | None = None,
    **changes: object,
) -> tuple[Classifier, list[EpochMetrics]]:
    """Train a copy and give it as its last epoch left it: to keep the best one hides what methods prevent."""
    classifier = copy.deepcopy(start)
    base = {"freeze_depth": 0, "learning_rate": 1e-2, "epochs": 20, "batch_size": 16, "schedule": "cosine"}
    recipe = some_hyperparameters(**{**base, **changes})
    last: dict[str, Tensor] = {}

    def keep_last(end: EpochEnd) -> None:
        if end.metrics.epoch == recipe.epochs:
            last.update(copy.deepcopy(classifier.state_dict()))

    settings = some_settings(seed=seed, batch_norm=batch_norm, augment=augment)
    result = fine_tune(classifier, SPEC, train, validation, recipe, settings, on_epoch=keep_last, companion=companion)
    classifier.load_state_dict(last)
    return classifier, result.history


def probabilities(classifier: Classifier, samples: ArraySamples) -> NDArray[np.float32]:
    return predict_probabilities(classifier, SPEC, samples.pixels, device="cpu")


def loss(classifier: Classifier, samples: ArraySamples) -> float:
    found = probabilities(classifier, samples)
    return float(-np.log(found[np.arange(len(samples)), samples.labels]).mean())


def accuracy(classifier: Classifier, samples: ArraySamples) -> float:
    return float((probabilities(classifier, samples).argmax(axis=1) == samples.labels).mean())


def balanced_accuracy(classifier: Classifier, samples: ArraySamples) -> float:
    right = probabilities(classifier, samples).argmax(axis=1) == samples.labels
    return float(np.mean([right[samples.labels == label].mean() for label in range(len(LABELS))]))


def mean_over_seeds(measure: Callable[..., float], *arguments: object) -> float:
    return float(np.mean([measure(seed, *arguments) for seed in SEEDS]))


@cache
def source_model(seed: int) -> Classifier:
    train = pictures(in_turn(400), seed=200 + seed)
    return tuned(fresh(seed), train, train, seed=seed, epochs=4)[0]


def tuned_on_a_shift(seed: int, **changes: object) -> Classifier:
    """Tune a source's model on 12 images of a target with another tint, by default for 12 epochs."""
    train, validation = pictures(in_turn(12), seed=seed, tint=60.0), held_out(seed, tint=60.0)
    how = {"epochs": 12, **changes}
    return tuned(source_model(seed), train, validation, seed=seed, batch_norm="frozen", **how)[0]


@cache
def losses_after_a_shift(seed: int, **changes: object) -> tuple[float, float]:
    """Give the losses on the source and on the target after tuning on a target with another tint."""
    classifier = tuned_on_a_shift(seed, **changes)
    return loss(classifier, held_out(seed)), loss(classifier, held_out(seed, tint=60.0))
