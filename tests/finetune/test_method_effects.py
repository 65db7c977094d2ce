"""What the sources of methods report of them: each on a set that is made for it, on the mean over three seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from builders import class_image
from finetune_examples import ArraySamples, a_spec, some_hyperparameters, some_settings
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from orchestrator.config import AugmentConfig
from orchestrator.finetune.adversarial import adversarial_images
from orchestrator.finetune.classifier import (
    Classifier,
    extract_features,
    new_classifier,
    predict_probabilities,
    preprocess,
)
from orchestrator.finetune.contracts import NO_AUGMENTATION
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.finetune.regularization import penalty, sparsity
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import EpochMetrics

SEEDS = (0, 1, 2)
LABELS = ("circle", "stripe", "cross", "dot")
SPEC = a_spec(width=16)
HEAD_ONLY = 3


def pictures(labels: NDArray[np.int64], *, seed: int, noise: float = 60.0, tint: float = 0.0) -> ArraySamples:
    """Draw an image for every class index; noise hides the classes, a tint is added to all images."""
    rng = np.random.default_rng([seed, len(labels)])
    clean = np.stack([class_image(LABELS[label], rng, SPEC.image_size) for label in labels]).astype(np.float64)
    pixels = clean + rng.normal(0, noise, size=clean.shape) + tint * np.array([1.0, -1.0, 0.5])
    return ArraySamples(pixels.clip(0, 255).astype(np.uint8), labels.astype(np.int64))


def in_turn(count: int) -> NDArray[np.int64]:
    return np.arange(count) % len(LABELS)


def held_out(seed: int, **how: float) -> ArraySamples:
    return pictures(in_turn(200), seed=100 + seed, **how)


def fresh(seed: int) -> Classifier:
    backbone, _ = load_pretrained("none", SPEC, seed=seed)
    return new_classifier(backbone, len(LABELS), seed=seed)


def tuned(
    start: Classifier,
    train: ArraySamples,
    validation: ArraySamples,
    *,
    seed: int,
    batch_norm: str = "train",
    augment: AugmentConfig = NO_AUGMENTATION,
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
    result = fine_tune(classifier, SPEC, train, validation, recipe, settings, on_epoch=keep_last)
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


AGAINST_OVERCONFIDENCE = {
    "smoothing": {"label_smoothing": 0.2},
    "mixup": {"mixing": "mixup", "mixing_alpha": 1.0},
    "cutmix": {"mixing": "cutmix", "mixing_alpha": 1.0},
    "focal": {"loss": "focal"},
}


@cache
def trained_on_false_labels(seed: int, method: str) -> tuple[float, float]:
    """Give loss and overconfidence on held-out images after learning labels of which 7 in 10 are random."""
    train, validation = pictures(in_turn(120), seed=seed, noise=120.0), held_out(seed, noise=120.0)
    rng = np.random.default_rng(seed)
    drawn = rng.random(len(train)) < 0.7
    train.labels[drawn] = rng.integers(0, len(LABELS), drawn.sum())
    classifier, history = tuned(fresh(seed), train, validation, seed=seed, **AGAINST_OVERCONFIDENCE.get(method, {}))
    confidence = float(probabilities(classifier, validation).max(axis=1).mean())
    return history[-1].val_loss, confidence - accuracy(classifier, validation)


@pytest.mark.parametrize("method", AGAINST_OVERCONFIDENCE)
def test_a_model_that_learns_false_labels_by_heart_is_less_sure_of_itself_by(method: str) -> None:
    # Smoothing: Szegedy et al., 2016, and Lukasik et al., 2020; mixup: Zhang et al., 2018, and Thulasidasan et al.,
    # 2019; CutMix: Yun et al., 2019; focal: Mukhoti et al., 2020.
    plain, changed = (
        np.mean([trained_on_false_labels(seed, name) for seed in SEEDS], axis=0) for name in ("plain", method)
    )
    assert changed[0] < 0.95 * plain[0]
    assert changed[1] < 0.8 * plain[1]


@cache
def source_model(seed: int) -> Classifier:
    train = pictures(in_turn(400), seed=200 + seed)
    return tuned(fresh(seed), train, train, seed=seed, epochs=4)[0]


def losses_after_a_shift(seed: int, weight: float) -> tuple[float, float]:
    """Give the losses on the source and on the target after tuning on 12 images of a target with another tint."""
    source, target = held_out(seed), held_out(seed, tint=60.0)
    classifier, _ = tuned(
        source_model(seed),
        pictures(in_turn(12), seed=seed, tint=60.0),
        target,
        seed=seed,
        epochs=12,
        batch_norm="frozen",
        regularizer="l2_sp",
        regularizer_weight=weight,
        regularizer_scope="both",
    )
    return loss(classifier, source), loss(classifier, target)


def test_a_pull_to_the_start_learns_a_shifted_target_and_forgets_less_of_the_source() -> None:
    # Li, Grandvalet and Davoine, 2018.
    free, pulled = (np.mean([losses_after_a_shift(seed, weight) for seed in SEEDS], axis=0) for weight in (0.0, 0.5))
    before = np.mean([loss(source_model(seed), held_out(seed, tint=60.0)) for seed in SEEDS])
    assert pulled[0] < 0.7 * free[0]
    assert pulled[1] < 0.5 * before


def zeros_of(seed: int, regularizer: str) -> float:
    train = pictures(in_turn(96), seed=seed)
    classifier, history = tuned(
        fresh(seed), train, train, seed=seed, regularizer=regularizer, regularizer_weight=0.01, regularizer_scope="both"
    )
    assert history[-1].val_accuracy > 0.9
    return sparsity({name: weights for name, weights in classifier.named_parameters() if weights.dim() > 1}, 1e-3)


def test_l1_empties_weights_and_l2_does_not() -> None:
    # Tibshirani, 1996.
    assert mean_over_seeds(zeros_of, "l1") > 0.5
    assert mean_over_seeds(zeros_of, "l2") < 0.25


PULLS = {"cosine": 10.0, "euclidean": 1.0, "orthogonal": 0.1}


def penalty_after(seed: int, regularizer: str, weight: float) -> float:
    start, train = fresh(seed), pictures(in_turn(48), seed=seed)
    classifier, _ = tuned(
        start,
        train,
        train,
        seed=seed,
        epochs=10,
        regularizer=regularizer,
        regularizer_weight=weight,
        regularizer_scope="both",
    )
    before, after = (
        {name: weights.detach() for name, weights in model.named_parameters()} for model in (start, classifier)
    )
    return float(penalty(regularizer, after, before))


@pytest.mark.parametrize("regularizer", PULLS)
def test_what_is_penalised_ends_smaller(regularizer: str) -> None:
    free, bound = (mean_over_seeds(penalty_after, regularizer, weight) for weight in (0.0, PULLS[regularizer]))
    assert bound < 0.8 * free


def rare_and_common(seed: int, changes: dict[str, object]) -> float:
    """Give the balanced accuracy of a head that saw 160 images of one class and 12 of each other."""
    train = pictures(np.repeat(np.arange(4), [160, 12, 12, 12]), seed=seed, noise=90.0)
    validation = held_out(seed, noise=90.0)
    classifier, _ = tuned(fresh(seed), train, validation, seed=seed, freeze_depth=HEAD_ONLY, **changes)
    return balanced_accuracy(classifier, validation)


@pytest.mark.parametrize("changes", [{"class_weights": "balanced"}, {"balanced": True}])
def test_rare_classes_are_found_more_often_when_they_count_as_much(changes: dict[str, object]) -> None:
    assert mean_over_seeds(rare_and_common, changes) > mean_over_seeds(rare_and_common, {}) + 0.1


def accuracy_under_attack(seed: int, epsilon: float) -> float:
    validation = held_out(seed, noise=30.0)
    train = pictures(in_turn(96), seed=seed, noise=30.0)
    classifier, _ = tuned(fresh(seed), train, validation, seed=seed, epochs=10, adversarial=epsilon)
    images, labels = preprocess(validation.pixels, SPEC, "cpu"), torch.from_numpy(validation.labels)
    moved = adversarial_images(
        classifier.eval(), cross_entropy, images, labels, epsilon=0.1, mean=SPEC.mean, std=SPEC.std
    )
    with torch.no_grad():
        return float((classifier(moved).argmax(dim=1) == labels).float().mean())


def test_training_on_adversarial_images_keeps_accuracy_under_attack() -> None:
    # Goodfellow, Shlens and Szegedy, 2015.
    assert mean_over_seeds(accuracy_under_attack, 0.1) > mean_over_seeds(accuracy_under_attack, 0.0) + 0.2


def distortion(seed: int, changes: dict[str, object]) -> float:
    """Give how far the features of shifted images move, in relation to their length, while a new head is fitted."""
    start = new_classifier(source_model(seed).backbone, len(LABELS), seed=seed + 50)
    shifted = held_out(seed, tint=40.0)
    train = pictures(in_turn(24), seed=seed)
    # At a constant rate, which is the same wherever a phase begins.
    how = {"optimizer": "sgd", "schedule": "constant", **changes}
    classifier, _ = tuned(start, train, shifted, seed=seed, batch_norm="frozen", **how)
    assert accuracy(classifier, train) == 1
    before, after = (
        extract_features(model.backbone, SPEC, shifted.pixels, device="cpu") for model in (start, classifier)
    )
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def test_a_fitted_head_distorts_features_less_than_a_random_one() -> None:
    # Kumar et al., 2022; in both, ten epochs train everything.
    fitted = mean_over_seeds(distortion, {"strategy": "probe_then_finetune", "epochs": 40, "head_share": 0.75})
    assert fitted < 0.7 * mean_over_seeds(distortion, {"epochs": 10})


def restlessness(seed: int, ema_decay: float | None) -> float:
    """Give the mean change of the validation loss from epoch to epoch at a rate that is too large."""
    train, validation = pictures(in_turn(120), seed=seed, noise=160.0), held_out(seed, noise=160.0)
    changes = {"epochs": 12, "learning_rate": 2e-2, "schedule": "constant", "ema_decay": ema_decay}
    _, history = tuned(fresh(seed), train, validation, seed=seed, **changes)
    return float(np.abs(np.diff([epoch.val_loss for epoch in history[4:]])).mean())


def test_averaged_weights_are_steadier() -> None:
    # Polyak and Juditsky, 1992.
    assert mean_over_seeds(restlessness, 0.95) < 0.7 * mean_over_seeds(restlessness, None)


def darkened(samples: ArraySamples, seed: int) -> ArraySamples:
    return ArraySamples((samples.pixels * 0.6).astype(np.uint8), samples.labels)


def covered(samples: ArraySamples, seed: int) -> ArraySamples:
    """Hide a quarter of each image behind noise."""
    rng = np.random.default_rng(seed)
    pixels, side = samples.pixels.copy(), SPEC.image_size // 2
    for image, (top, left) in zip(pixels, rng.integers(0, side, size=(len(pixels), 2)), strict=True):
        image[top : top + side, left : left + side] = rng.integers(0, 256, (side, side, 3))
    return ArraySamples(pixels, samples.labels)


def loss_where_it_differs(
    seed: int, augment: AugmentConfig, differ: Callable[[ArraySamples, int], ArraySamples]
) -> float:
    train, validation = pictures(in_turn(40), seed=seed, noise=30.0), held_out(seed, noise=30.0)
    classifier, _ = tuned(fresh(seed), train, validation, seed=seed, augment=augment)
    return loss(classifier, differ(validation, seed))


@pytest.mark.parametrize(
    ("augment", "differ"),
    [
        (AugmentConfig(views=0, colour=0.5), darkened),
        (AugmentConfig(views=0, randaugment=2), darkened),
        (AugmentConfig(views=0, erasing=0.7), covered),  # Zhong et al., 2020
    ],
)
def test_varied_images_prepare_for_others_that_differ_likewise(
    augment: AugmentConfig, differ: Callable[[ArraySamples, int], ArraySamples]
) -> None:
    varied, plain = (mean_over_seeds(loss_where_it_differs, how, differ) for how in (augment, NO_AUGMENTATION))
    assert varied < 0.8 * plain
