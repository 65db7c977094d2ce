"""What a source, prototypes, a second task and pretraining give where a target has few images, over three seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from effect_examples import (
    HEAD_ONLY,
    LABELS,
    SEEDS,
    SPEC,
    fresh,
    held_out,
    in_turn,
    loss,
    mean_over_seeds,
    pictures,
    probabilities,
    tuned,
)
from finetune_examples import ArraySamples, some_hyperparameters, some_settings
from numpy.typing import NDArray

from orchestrator.config import DomainPenalty, SimSiamConfig
from orchestrator.evaluation.intervals import bootstrap_interval
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import Activations, Layout
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.simsiam import new_simsiam
from orchestrator.finetune.simsiam_training import train_simsiam
from orchestrator.finetune.weights import load_pretrained

# Rate and epochs of heads that are trained by steps; the best on the test images is compared, which favours them.
LINEAR = ((1e-2, 30), (1e-2, 100), (1e-1, 30))
WAYS, DIMENSIONS = 5, 32


def loss_beside(seed: int, source: bool, penalty: DomainPenalty = "none") -> float:
    """Give the loss on a target of which there are two noisy images a class; its source has another tint."""
    train = pictures(in_turn(8), seed=seed, noise=120.0, tint=20.0)
    images = pictures(in_turn(200), seed=300 + seed, noise=120.0)
    companion = Companion(samples=images, penalty=penalty) if source else None
    classifier, _ = tuned(fresh(seed), train, train, seed=seed, epochs=30, companion=companion)
    return loss(classifier, held_out(seed, noise=120.0, tint=20.0))


@pytest.mark.parametrize("penalty", ["none", "coral"])
def test_source_and_target_together_beat_a_target_with_few_images(penalty: DomainPenalty) -> None:
    assert mean_over_seeds(loss_beside, True, penalty) < 0.6 * mean_over_seeds(loss_beside, False)


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Features for stored outputs of the frozen stages."""

    rows: NDArray[np.float32]

    def take(self, positions: NDArray[np.int64], draw: int) -> NDArray[np.float32]:
        return self.rows[positions]

    def check(self) -> None:
        pass


def clusters(seed: int, shots: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw features [n, 32] around a direction for each class, of different lengths; all but `shots` are for tests."""
    rng = np.random.default_rng([seed, shots])
    centres = rng.normal(size=(WAYS, DIMENSIONS))
    labels = np.concatenate([np.repeat(np.arange(WAYS), shots), np.arange(100 * WAYS) % WAYS])
    features = centres[labels] + 2 * rng.normal(size=(len(labels), DIMENSIONS))
    lengths = np.exp(0.5 * rng.normal(size=(len(labels), 1)))
    return (lengths * features).astype(np.float32), labels


def accuracy_on_clusters(seed: int, shots: int, head: str, rate: float, epochs: int) -> float:
    features, labels = clusters(seed, shots)
    known = shots * WAYS
    classifier = new_classifier(load_pretrained("none", SPEC, seed=0)[0], WAYS, seed=seed)
    samples = ArraySamples(np.zeros((known, 1, 1, 3), dtype=np.uint8), labels[:known])
    rows, layout = KeptRows(features[:known]), Layout(shape=(DIMENSIONS,), channels_last=False)
    kept = Activations(depth=HEAD_ONLY, layout=layout, dtype="fp32", train=rows, validation=rows)
    recipe = some_hyperparameters(head=head, learning_rate=rate, epochs=epochs, freeze_depth=HEAD_ONLY, batch_size=32)
    fine_tune(classifier, SPEC, samples, samples, recipe, some_settings(metric="val_loss"), activations=kept)
    with torch.no_grad():
        found = classifier.head(torch.from_numpy(features[known:])).argmax(dim=1).numpy()
    return float((found == labels[known:]).mean())


@pytest.mark.parametrize("shots", [1, 5])
def test_prototypes_of_few_shots_beat_a_linear_head_however_it_is_trained(shots: int) -> None:
    # Snell et al., 2017.
    prototypes = mean_over_seeds(accuracy_on_clusters, shots, "prototype", 1e-3, 1)
    best = max(mean_over_seeds(accuracy_on_clusters, shots, "linear", *how) for how in LINEAR)
    assert prototypes > best + 0.05


def of_two_tasks(count: int, seed: int) -> ArraySamples:
    """Draw images with two labels [n, 2]: what is seen, and whether it is tinted."""
    classes, tinted = in_turn(count), np.random.default_rng([seed, count, 5]).integers(0, 2, count)
    plain, other = (pictures(classes, seed=seed, noise=90.0, tint=tint) for tint in (0.0, 40.0))
    pixels = np.where(tinted[:, None, None, None] == 1, other.pixels, plain.pixels)
    return ArraySamples(pixels, np.stack([classes, tinted], axis=1))


def right_answers(seed: int, tasks: list[int], epochs: int) -> NDArray[np.float64]:
    """Tell for some of the tasks [n, T] which of the test images a model of these alone gets right."""
    train, test = of_two_tasks(80, seed), of_two_tasks(400, 100 + seed)
    samples = ArraySamples(train.pixels, train.labels[:, tasks] if len(tasks) > 1 else train.labels[:, tasks[0]])
    counts = [(len(LABELS), 2)[task] for task in tasks]
    start = new_classifier(fresh(seed).backbone, counts, seed=seed)
    classifier, _ = tuned(start, samples, samples, seed=seed, epochs=epochs)
    parts = np.split(probabilities(classifier, test), np.cumsum(counts)[:-1], axis=1)
    return np.stack([part.argmax(axis=1) == test.labels[:, task] for part, task in zip(parts, tasks, strict=True)], 1)


def test_of_two_tasks_together_none_is_worse_than_its_single_model_at_equal_cost_beyond_its_interval() -> None:
    # Twice the epochs of one model cost what two models cost.
    joint = np.mean([right_answers(seed, [0, 1], 20) for seed in SEEDS], axis=0)
    for task, least in ((0, 0.9), (1, 0.8)):
        single = np.mean([right_answers(seed, [task], 10) for seed in SEEDS], axis=0)[:, 0]
        _, high = bootstrap_interval(joint[:, task] - single, 1000, 0)
        assert high >= 0
        assert joint[:, task].mean() > least


@cache
def pretrained(seed: int, objective: str) -> Backbone:
    """Train a backbone for 8 epochs of 15 steps on a source, or not at all."""
    source = pictures(in_turn(240), seed=300 + seed, noise=90.0)
    start = fresh(seed)
    if objective == "supervised":
        return tuned(start, source, source, seed=seed, epochs=8)[0].backbone
    if objective == "simsiam":
        config = SimSiamConfig(epochs=8, batch_size=16, width=32, learning_rate=1.0)
        model = new_simsiam(start.backbone, config, seed=seed)
        train_simsiam(model, SPEC, source, config, some_settings(seed=seed))
        return model.backbone
    return start.backbone


def loss_after_pretraining(seed: int, objective: str, freeze_depth: int) -> float:
    """Give the loss on a target of another tint after the same 20 epochs on two images a class."""
    train = pictures(in_turn(8), seed=seed, noise=90.0, tint=20.0)
    classifier = new_classifier(pretrained(seed, objective), len(LABELS), seed=seed)
    how = {"freeze_depth": freeze_depth, "batch_norm": "train" if freeze_depth == 0 else "frozen"}
    return loss(tuned(classifier, train, train, seed=seed, **how)[0], held_out(seed, noise=90.0, tint=20.0))


@pytest.mark.parametrize("freeze_depth", [0, HEAD_ONLY])
@pytest.mark.parametrize("objective", ["supervised", "simsiam"])
def test_pretraining_serves_a_target_with_few_images_better_than_none(objective: str, freeze_depth: int) -> None:
    none = mean_over_seeds(loss_after_pretraining, "none", freeze_depth)
    assert mean_over_seeds(loss_after_pretraining, objective, freeze_depth) < 0.7 * none
