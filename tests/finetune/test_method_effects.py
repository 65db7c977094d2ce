"""What the sources of methods report of them: each on a set that is made for it, on the mean over three seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from effect_examples import (
    HEAD_ONLY,
    LABELS,
    RESIDUAL,
    SEEDS,
    SPEC,
    accuracy,
    balanced_accuracy,
    fresh,
    held_out,
    in_turn,
    loss,
    losses_after_a_shift,
    mean_over_seeds,
    pictures,
    probabilities,
    source_model,
    tuned,
    tuned_on_a_shift,
)
from finetune_examples import ArraySamples
from torch.nn.functional import cross_entropy

from orchestrator.config import AugmentConfig
from orchestrator.finetune.adversarial import adversarial_images
from orchestrator.finetune.classifier import extract_features, new_classifier, preprocess
from orchestrator.finetune.contracts import NO_AUGMENTATION
from orchestrator.finetune.regularization import penalty, sparsity
from orchestrator.records import BackboneSpec

AGAINST_OVERCONFIDENCE = {
    "smoothing": {"label_smoothing": 0.2},
    "mixup": {"mixing": "mixup", "mixing_alpha": 1.0},
    "cutmix": {"mixing": "cutmix", "mixing_alpha": 1.0},
    "focal": {"loss": "focal"},
}
# By gradient descent: Adam's steps do not change with the length of the gradient.
BY_DESCENT = {"optimizer": "sgd", "learning_rate": 0.02}
TOWARDS_THE_MODEL = {"label_smoothing": 0.9, "smoothing_target": "model"}
OTHERS: dict[str, dict[str, object]] = {
    "descent": BY_DESCENT,
    "descent, bootstrapped": {**BY_DESCENT, **TOWARDS_THE_MODEL},
    "focal, bootstrapped": {"loss": "focal", **TOWARDS_THE_MODEL},
}


@cache
def trained_on_false_labels(seed: int, method: str) -> tuple[float, float]:
    """Give loss and overconfidence on held-out images after learning labels of which 7 in 10 are random."""
    train, validation = pictures(in_turn(120), seed=seed, noise=120.0), held_out(seed, noise=120.0)
    rng = np.random.default_rng(seed)
    drawn = rng.random(len(train)) < 0.7
    train.labels[drawn] = rng.integers(0, len(LABELS), drawn.sum())
    changes = {**AGAINST_OVERCONFIDENCE, **OTHERS}.get(method, {})
    classifier, history = tuned(fresh(seed), train, validation, seed=seed, **changes)
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


def test_a_model_that_is_told_to_trust_itself_suffers_less_from_false_labels() -> None:
    # Bootstrapping: Reed et al., 2015.
    plain, told, focal, focal_told = (
        np.mean([trained_on_false_labels(seed, name) for seed in SEEDS], axis=0)
        for name in ("descent", "descent, bootstrapped", "focal", "focal, bootstrapped")
    )
    assert told[0] < 0.95 * plain[0]
    assert focal_told[1] < 0.6 * focal[1]


def test_of_plain_cross_entropy_trusting_the_model_is_learning_at_a_smaller_rate() -> None:
    # Its own prediction, taken as a constant, has no gradient but that of the labels, divided by 1.9.
    train, validation = pictures(in_turn(60), seed=0), held_out(0)
    how = {"seed": 0, "epochs": 2, "optimizer": "sgd"}
    told, _ = tuned(fresh(0), train, validation, learning_rate=0.019, **TOWARDS_THE_MODEL, **how)
    slow, _ = tuned(fresh(0), train, validation, learning_rate=0.01, **how)
    for name, tensor in told.state_dict().items():
        torch.testing.assert_close(tensor, slow.state_dict()[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("regularizer", "weight"), [("l2_sp", 0.5), ("cosine", 100.0), ("euclidean", 3.0)])
def test_a_pull_to_the_start_learns_a_shifted_target_and_forgets_less_of_the_source(
    regularizer: str, weight: float
) -> None:
    # L2-SP: Li, Grandvalet and Davoine, 2018; the two others hold the weights' directions, and all their places.
    pull = {"regularizer": regularizer, "regularizer_weight": weight, "regularizer_scope": "both"}
    free, pulled = (np.mean([losses_after_a_shift(seed, **how) for seed in SEEDS], axis=0) for how in ({}, pull))
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


def overlap_after_a_shift(seed: int, weight: float) -> tuple[float, float]:
    """Give |theta^T theta_s|_F^2, as a share of that at the start, and the loss on the target, after a shift."""
    start, pull = source_model(seed), {"regularizer": "orthogonal", "regularizer_weight": weight}
    classifier = tuned_on_a_shift(seed, regularizer_scope="both", **pull)
    before, after = (
        {name: weights.detach() for name, weights in model.named_parameters()} for model in (start, classifier)
    )
    share = float(penalty("orthogonal", after, before) / penalty("orthogonal", before, before))
    return share, loss(classifier, held_out(seed, tint=60.0))


def test_orthogonal_weights_leave_the_directions_of_the_source_and_learn_a_shifted_target_in_others() -> None:
    # It is no pull to the start but a push out of the directions that the source uses.
    free, pushed = (np.mean([overlap_after_a_shift(seed, weight) for seed in SEEDS], axis=0) for weight in (0.0, 0.01))
    before = np.mean([loss(source_model(seed), held_out(seed, tint=60.0)) for seed in SEEDS])
    assert pushed[0] < 0.6 * free[0]
    assert pushed[1] < 0.1 * before


def rare_and_common(seed: int, changes: dict[str, object]) -> float:
    """Give the balanced accuracy of a head that saw 160 images of one class and 12 of each other."""
    train = pictures(np.repeat(np.arange(4), [160, 12, 12, 12]), seed=seed, noise=90.0)
    validation = held_out(seed, noise=90.0)
    classifier, _ = tuned(fresh(seed), train, validation, seed=seed, freeze_depth=HEAD_ONLY, **changes)
    return balanced_accuracy(classifier, validation)


@pytest.mark.parametrize("changes", [{"class_weights": "balanced"}, {"balanced": True}])
def test_rare_classes_are_found_more_often_when_they_count_as_much(changes: dict[str, object]) -> None:
    assert mean_over_seeds(rare_and_common, changes) > mean_over_seeds(rare_and_common, {}) + 0.1


def gap(seed: int, spec: BackboneSpec, noise: float, changes: dict[str, object]) -> float:
    """Give how much larger the loss on held-out images is than on the 24 training images."""
    train, validation = pictures(in_turn(24), seed=seed, noise=noise), held_out(seed, noise=noise)
    # On statistics that are learnt, those of a batch add enough noise of their own.
    classifier, _ = tuned(fresh(seed, spec), train, validation, seed=seed, batch_norm="frozen", **changes)
    return loss(classifier, validation) - loss(classifier, train)


def test_dropout_brings_few_training_images_and_others_closer_together() -> None:
    # Srivastava et al., 2014.
    assert mean_over_seeds(gap, SPEC, 120.0, {"dropout": 0.5}) < 0.7 * mean_over_seeds(gap, SPEC, 120.0, {})


def test_skipped_blocks_bring_few_training_images_and_others_closer_together() -> None:
    # Huang et al., 2016.
    skipped, plain = (
        mean_over_seeds(gap, RESIDUAL, 180.0, {"learning_rate": 5e-3, "stochastic_depth": rate}) for rate in (0.5, 0.0)
    )
    assert skipped < 0.7 * plain


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


def without_colour(samples: ArraySamples) -> ArraySamples:
    """Leave the waves of pictures, around one grey for all."""
    grey = samples.pixels.mean(axis=3, keepdims=True)
    waves = 128 + np.repeat(grey - grey.mean(axis=(1, 2), keepdims=True), 3, axis=3)
    return ArraySamples(waves.clip(0, 255).astype(np.uint8), samples.labels)


def waves(count: int, seed: int) -> ArraySamples:
    return without_colour(pictures(in_turn(count), seed=seed, noise=20.0))


def mirrored(samples: ArraySamples) -> ArraySamples:
    return ArraySamples(samples.pixels[:, :, ::-1].copy(), samples.labels)


def marks(count: int, seed: int, *, farthest: int = 0) -> ArraySamples:
    """Draw one of four marks of 4 x 4 pixels, in the middle or up to so many pixels away from it."""
    rng, labels = np.random.default_rng([seed, count]), in_turn(count)
    stripes, size = np.outer([1, 0, 1, 0], np.ones(4)), SPEC.image_size
    shapes = [np.eye(4), np.eye(4)[::-1], stripes, stripes.T]
    pixels = rng.normal(110, 30, size=(count, size, size, 3))
    corners = size // 2 - 2 + rng.integers(-farthest, farthest + 1, size=(count, 2))
    for image, label, (top, left) in zip(pixels, labels, corners, strict=True):
        image[top : top + 4, left : left + 4] += 100 * shapes[label][..., None]
    return ArraySamples(pixels.clip(0, 255).astype(np.uint8), labels)


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


def losses_of_waves(seed: int, augment: AugmentConfig) -> tuple[float, float]:
    """Give the losses on waves that run as those that were learnt, and on mirrored ones."""
    validation = waves(200, 100 + seed)
    classifier, _ = tuned(fresh(seed), waves(60, seed), validation, seed=seed, augment=augment)
    return loss(classifier, validation), loss(classifier, mirrored(validation))


def test_mirrored_training_images_prepare_for_mirrored_test_images() -> None:
    hows = (NO_AUGMENTATION, AugmentConfig(views=0, flip=True))
    plain, flipped = (np.mean([losses_of_waves(seed, how) for seed in SEEDS], axis=0) for how in hows)
    assert flipped[1] < 0.2 * plain[1]
    assert flipped[0] < 0.1


def loss_of_moved_marks(seed: int, augment: AugmentConfig) -> float:
    train, validation = marks(60, seed), marks(200, 100 + seed)
    classifier, _ = tuned(fresh(seed), train, validation, seed=seed, augment=augment)
    return loss(classifier, marks(200, 200 + seed, farthest=4))


def test_shifted_training_images_prepare_for_shifted_test_images() -> None:
    plain, shifted = (
        mean_over_seeds(loss_of_moved_marks, how) for how in (NO_AUGMENTATION, AugmentConfig(views=0, crop=0.25))
    )
    assert shifted < 0.5 * plain
