"""A source that is trained on beside a target: what is drawn of it, what it changes, and what it leaves alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from finetune_examples import (
    LABELS,
    ArraySamples,
    ListStream,
    a_spec,
    some_hyperparameters,
    some_samples,
    some_settings,
)
from torch import Tensor

from orchestrator.config import AugmentConfig, DomainPenalty
from orchestrator.errors import TrainingError
from orchestrator.evaluation.outliers import area_under_curve, tell_outliers
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import (
    Classifier,
    extract_features,
    new_classifier,
    predict_probabilities,
    preprocess,
)
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.cosine import CosineHead
from orchestrator.finetune.domain_penalties import coral, squared_mmd
from orchestrator.finetune.joint import without_extra
from orchestrator.finetune.loop import FineTuneResult, fine_tune
from orchestrator.finetune.weights import load_pretrained


def a_companion(count: int = 20, **changes: Any) -> Companion:
    return Companion(samples=some_samples(count, seed=9), **changes)


def train(
    companion: Companion | None,
    train_samples: Any = None,
    *,
    resume: TrainingState | None = None,
    states: list[TrainingState] | None = None,
    settings: dict[str, Any] | None = None,
    **changes: object,
) -> tuple[Classifier, FineTuneResult]:
    backbone, _ = load_pretrained("none", a_spec(), seed=0)
    extra = 0 if companion is None else companion.num_extra
    classifier = new_classifier(backbone, len(LABELS) + extra, seed=0)
    result = fine_tune(
        classifier,
        a_spec(),
        some_samples(30) if train_samples is None else train_samples,
        some_samples(12, seed=1),
        some_hyperparameters(**changes),
        some_settings(**(settings or {})),
        on_epoch=lambda end: None if states is None else states.append(end.state),
        resume=resume,
        companion=companion,
    )
    return classifier, result


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_source_that_counts_for_nothing_changes_no_bit() -> None:
    companion = a_companion(weight=0.0)
    alone, beside = train(None), train(companion)
    assert equal(alone[0].state_dict(), beside[0].state_dict())
    assert alone[1].history == beside[1].history
    assert isinstance(companion.samples, ArraySamples) and not companion.samples.taken


@pytest.mark.parametrize(
    "changes", [{}, {"penalty": "coral"}, {"weight": 0.0, "penalty": "mmd", "penalty_weight": 5.0}]
)
def test_a_source_that_counts_changes_what_is_learned(changes: dict[str, Any]) -> None:
    assert not equal(train(None)[0].state_dict(), train(a_companion(**changes))[0].state_dict())


def test_every_target_sample_is_seen_once_an_epoch_and_the_source_evenly_over_all_of_them() -> None:
    target, companion = some_samples(30), a_companion(20, batch_share=0.4)
    # Depth 0 computes the inputs whenever they are drawn, and takes no others.
    train(companion, target, freeze_depth=0, epochs=4)
    assert Counter(target.taken) == Counter(dict.fromkeys(range(30), 4))
    assert isinstance(companion.samples, ArraySamples)
    # 0.4 / 0.6 of 4 x 30 images are 80, four times each of the twenty.
    assert Counter(companion.samples.taken) == Counter(dict.fromkeys(range(20), 4))


def test_a_short_training_computes_no_more_of_a_large_source_than_it_draws() -> None:
    companion = a_companion(200)
    train(companion, freeze_depth=2, epochs=2)
    assert isinstance(companion.samples, ArraySamples)
    assert len(companion.samples.taken) == len(set(companion.samples.taken)) == 60


def test_epochs_draw_the_source_in_different_orders() -> None:
    companion = a_companion(30)
    train(companion, freeze_depth=0, epochs=2)
    assert isinstance(companion.samples, ArraySamples)
    first, second = companion.samples.taken[:30], companion.samples.taken[30:]
    assert sorted(first) == sorted(second) and first != second


@pytest.mark.parametrize("changes", [{"freeze_depth": 0}, {"freeze_depth": 2, "ema_decay": 0.5, "schedule": "cosine"}])
def test_resumed_equals_uninterrupted(changes: dict[str, Any]) -> None:
    companion = a_companion(penalty="mmd", num_extra=1)
    states: list[TrainingState] = []
    whole, result = train(companion, states=states, epochs=3, **changes)
    again, resumed = train(companion, resume=states[0], epochs=3, **changes)
    assert equal(whole.state_dict(), again.state_dict())
    assert result.history == resumed.history


@pytest.mark.parametrize("penalty", ["none", "coral", "mmd"])
def test_one_step_is_that_of_the_target_loss_plus_the_weighted_source_loss_and_penalty(penalty: DomainPenalty) -> None:
    target, companion = some_samples(8), a_companion(8, weight=0.7, penalty=penalty, penalty_weight=30.0)
    backbone, _ = load_pretrained("none", a_spec(), seed=0)
    by_hand = new_classifier(backbone, len(LABELS), seed=0).eval()
    spec = a_spec()

    def features(samples: Any) -> Tensor:
        found: Tensor = by_hand.backbone(preprocess(samples.pixels, spec, "cpu"))
        return found

    def mean_loss(samples: Any) -> Tensor:
        return torch.nn.functional.cross_entropy(by_hand.head(features(samples)), torch.from_numpy(samples.labels))

    distance = {"none": None, "coral": coral, "mmd": squared_mmd}[penalty]
    total = mean_loss(target) + 0.7 * mean_loss(companion.samples)
    if distance is not None:
        # Of what the head is applied to, not of what it gives.
        total = total + 30.0 * distance(features(companion.samples), features(target))
    total.backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            parameter -= 0.1 * parameter.grad
    options = {"freeze_depth": 0, "epochs": 1, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1}
    found, _ = train(companion, target, **options)
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": "mixup", "adversarial": 0.02},
        {"regularizer": "l2_sp", "regularizer_scope": "both", "dropout": 0.2},
        {"strategy": "gradual", "accumulate": 2, "balanced": True, "class_weights": "balanced", "loss": "focal"},
        {"settings": {"batch_norm": "train", "augment": AugmentConfig(views=2, flip=True)}},
        {"settings": {"augment": AugmentConfig(views=0, flip=True), "precision": "bf16"}},
    ],
)
def test_a_source_goes_with_every_method(changes: dict[str, Any]) -> None:
    _, result = train(a_companion(penalty="coral", num_extra=2), **changes)
    assert len(result.history) == 2


def test_a_stream_has_a_source_beside_it_too() -> None:
    target, companion = some_samples(13), a_companion(13)
    stream = ListStream(target, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10], [11, 12]], 13)
    train(companion, stream, freeze_depth=0, epochs=1)
    assert isinstance(companion.samples, ArraySamples)
    assert sorted(companion.samples.taken) == list(range(13))


def test_extra_outputs_are_learned_judged_apart_and_left_out_of_the_finished_model() -> None:
    samples = some_samples(30, seed=9)
    labels = np.where(samples.labels == 2, 3, samples.labels)
    companion = Companion(samples=ArraySamples(samples.pixels, labels), num_extra=1)
    classifier, result = train(companion, freeze_depth=0, epochs=3)
    finished = without_extra(classifier, companion.num_dropped)
    pixels, truth = some_samples(12, seed=1).pixels, some_samples(12, seed=1).labels
    whole, kept = (predict_probabilities(model, a_spec(), pixels, device="cpu") for model in (classifier, finished))
    assert whole.shape == (12, 4) and kept.shape == (12, 3)
    np.testing.assert_allclose(kept, whole[:, :3] / whole[:, :3].sum(axis=1, keepdims=True), atol=1e-6)
    best = result.history[result.best_epoch - 1]
    assert best.val_accuracy == pytest.approx((kept.argmax(axis=1) == truth).mean())
    assert best.val_loss == pytest.approx(-np.log(kept[np.arange(12), truth]).mean(), abs=1e-5)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_cosine_head_starts_from_the_targets_directions_and_from_the_sources_for_classes_of_its_own(
    depth: int,
) -> None:
    outside = dark(some_samples(30, seed=9))
    # Classes 1 and 2 of the source are the target's; 0 is its own.
    labels = np.where(outside.labels == 0, len(LABELS), outside.labels)
    companion = Companion(samples=ArraySamples(outside.pixels, labels), num_extra=1)
    classifier, _ = train(companion, freeze_depth=depth, epochs=3, learning_rate=1e-12, head="cosine")
    assert isinstance(classifier.head, CosineHead)

    def directions(samples: Any, of: list[int]) -> Any:
        found = extract_features(classifier.backbone, a_spec(), samples.pixels, device="cpu").astype(np.float64)
        units = found / np.linalg.norm(found, axis=1, keepdims=True)
        means = np.stack([units[samples.labels == label].mean(axis=0) for label in of])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    rows = classifier.head.weight.detach().numpy()
    np.testing.assert_allclose(rows[:3], directions(some_samples(30), [0, 1, 2]), atol=1e-4)
    np.testing.assert_allclose(rows[3:], directions(outside, [0]), atol=1e-4)
    finished = without_extra(classifier, companion.num_dropped)
    assert isinstance(finished.head, CosineHead) and finished.head.out_features == 3
    assert torch.equal(finished.head.scale, classifier.head.scale)
    pixels = some_samples(12, seed=1).pixels
    whole, kept = (predict_probabilities(model, a_spec(), pixels, device="cpu") for model in (classifier, finished))
    np.testing.assert_allclose(kept, whole[:, :3] / whole[:, :3].sum(axis=1, keepdims=True), atol=1e-6)


def dark(samples: ArraySamples) -> ArraySamples:
    return ArraySamples((samples.pixels // 4).astype(np.uint8), samples.labels)


@pytest.mark.parametrize("negatives", ["reject", "outlier_exposure"])
def test_the_score_tells_the_source_from_the_target(negatives: Any) -> None:
    outside = dark(some_samples(30, seed=9))
    label = len(LABELS) if negatives == "reject" else 0
    companion = Companion(
        samples=ArraySamples(outside.pixels, np.full(30, label)),
        num_extra=int(negatives == "reject"),
        keeps_extra=negatives == "reject",
        is_uniform=negatives == "outlier_exposure",
    )
    options = {"freeze_depth": 0, "epochs": 12, "learning_rate": 1e-2}
    classifier, result = train(companion, settings={"batch_norm": "train"}, **options)
    found = [
        predict_probabilities(classifier, a_spec(), samples.pixels, device="cpu")
        for samples in (some_samples(30, seed=5), dark(some_samples(30, seed=6)))
    ]
    target, source = (tell_outliers(probabilities, negatives) for probabilities in found)
    assert target[0].shape == (30, len(LABELS))
    assert target[1] is not None and source[1] is not None
    assert area_under_curve(target[1], source[1]) > 0.95
    assert max(metrics.val_accuracy for metrics in result.history) > 0.6


def test_a_source_without_samples_is_refused() -> None:
    with pytest.raises(TrainingError, match="a source must have training samples"):
        train(Companion(samples=ArraySamples(np.zeros((0, 16, 16, 3), np.uint8), np.zeros(0, np.int64))))
