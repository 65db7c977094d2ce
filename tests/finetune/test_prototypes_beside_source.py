"""Prototypes of target and source: what they are means of, what they look at, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from finetune_examples import LABELS, ArraySamples, ListStream, a_spec, some_samples
from numpy.typing import NDArray
from source_examples import TakenStream
from test_companions import equal, train
from torch import nn

from orchestrator.config import AugmentConfig
from orchestrator.errors import TrainingError
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, extract_features, predict_probabilities
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.joint import without_extra
from orchestrator.finetune.prototypes import LabelledFeatures, find_prototypes

HEAD_ONLY = 3
ALONE: dict[str, Any] = {"head": "prototype", "freeze_depth": HEAD_ONLY}
TARGET = some_samples(30)


def a_source(count: int = 20) -> ArraySamples:
    """Give darker images, of the target's classes but for one, which is the source's own."""
    found = some_samples(count, seed=9)
    labels = np.where(found.labels == 0, len(LABELS), found.labels)
    return ArraySamples((found.pixels // 4).astype(np.uint8), labels)


def by_hand(classifier: Classifier, source: ArraySamples, weight: float) -> NDArray[np.float64]:
    """Give the directions [K + 1, d] of weighted means of unit features."""
    parts = [(TARGET, 1 / len(TARGET)), (source, weight / len(source))]
    sums = np.zeros((len(LABELS) + 1, classifier.head.in_features))
    for samples, each in parts:
        rows = extract_features(classifier.backbone, a_spec(), samples.pixels, device="cpu").astype(np.float64)
        np.add.at(sums, samples.labels, each * rows / np.linalg.norm(rows, axis=1, keepdims=True))
    found: NDArray[np.float64] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return found


def directions_of(head: nn.Linear) -> NDArray[np.float64]:
    """Give the rows of a linear head less their mean, up to their common length."""
    rows = head.weight.detach().double().numpy()
    rows = rows - rows.mean(axis=0)
    found: NDArray[np.float64] = rows / np.linalg.norm(rows)
    return found


def centred(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give directions as a linear head has them."""
    rows = directions - directions.mean(axis=0)
    found: NDArray[np.float64] = rows / np.linalg.norm(rows)
    return found


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (TARGET, {"freeze_depth": HEAD_ONLY}),
        (ListStream(TARGET, [[*range(8)], [*range(8, 16)], [*range(16, 30)]], 30), {"freeze_depth": HEAD_ONLY}),
        # A rate of next to nothing leaves the start of free stages to be seen.
        (TARGET, {"freeze_depth": 1, "learning_rate": 1e-12}),
        (TARGET, {"freeze_depth": 1, "learning_rate": 1e-12, "mixing": "mixup"}),
    ],
)
@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_prototypes_are_means_of_both_by_their_weights_in_the_joint_loss(
    target: Any, changes: dict[str, Any], weight: float
) -> None:
    source = a_source()
    companion = Companion(samples=source, num_extra=1, weight=weight)
    classifier, result = train(companion, target, head="prototype", **changes)
    expected = by_hand(classifier, source, weight)
    np.testing.assert_allclose(directions_of(classifier.head), centred(expected), atol=1e-5)
    assert len(result.history) == (1 if changes["freeze_depth"] == HEAD_ONLY else 2)
    finished = without_extra(classifier, companion.num_dropped)
    asked = some_samples(12, seed=1)
    rows = extract_features(finished.backbone, a_spec(), asked.pixels, device="cpu")
    found = predict_probabilities(finished, a_spec(), asked.pixels, device="cpu")
    assert found.argmax(axis=1).tolist() == (rows @ expected[: len(LABELS)].T).argmax(axis=1).tolist()


def test_a_single_pass_looks_at_all_that_is_held_however_long_or_large_batches_would_be() -> None:
    found = []
    for changes in ({}, {"epochs": 50, "batch_size": 2, "learning_rate": 1.0}):
        # Two epochs beside 30 images would draw 60 of them.
        source = a_source(200)
        classifier, result = train(Companion(samples=source, num_extra=1), **ALONE, **changes)
        assert sorted(source.taken) == list(range(200))
        found.append((classifier.state_dict(), result.history))
    assert equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_no_more_of_a_large_source_is_looked_at_than_the_target_has_or_means_take() -> None:
    large = ArraySamples(np.zeros((2100, 16, 16, 3), np.uint8), np.full(2100, len(LABELS)))
    companion = Companion(samples=large, num_extra=1)
    assert [companion.looked_at(count) for count in (30, 2048, 2060, 9000)] == [2048, 2048, 2060, 2100]
    train(companion, **ALONE)
    assert len(large.taken) == len(set(large.taken)) == 2048


def test_prototypes_of_free_stages_are_of_what_the_training_draws() -> None:
    source = a_source(200)
    train(Companion(samples=source, num_extra=1), head="prototype", freeze_depth=2, epochs=2)
    assert len(source.taken) == len(set(source.taken)) == 60


@pytest.mark.parametrize("depth", [1, HEAD_ONLY])
def test_a_source_that_counts_for_nothing_leaves_prototypes_as_they_are_without_one(depth: int) -> None:
    samples = some_samples(20, seed=9)
    alone, result = train(None, head="prototype", freeze_depth=depth)
    idle, beside = train(Companion(samples=samples, weight=0.0), head="prototype", freeze_depth=depth)
    assert equal(alone.state_dict(), idle.state_dict()) and result.history == beside.history
    # Without steps there is nothing that a penalty would pull.
    idle = some_samples(20, seed=9)
    pulled, _ = train(Companion(samples=idle, weight=0.0, penalty="coral"), **ALONE)
    assert depth == 1 or (equal(alone.state_dict(), pulled.state_dict()) and not idle.taken)


def test_of_several_views_a_single_pass_looks_at_the_first_alone() -> None:
    source = a_source(20)
    settings = {"augment": AugmentConfig(views=4, crop=0.2)}
    train(Companion(samples=source, num_extra=1), **ALONE, settings=settings)
    assert sorted(source.taken) == list(range(20))


def test_the_class_that_rejects_is_of_the_source_alone_and_is_kept() -> None:
    source = a_source(20)
    rejected = ArraySamples(source.pixels, np.full(20, len(LABELS)))
    companion = Companion(samples=rejected, num_extra=1, keeps_extra=True)
    classifier, _ = train(companion, **ALONE)
    np.testing.assert_allclose(directions_of(classifier.head), centred(by_hand(classifier, rejected, 1.0)), atol=1e-5)
    assert without_extra(classifier, companion.num_dropped) is classifier
    outside = ArraySamples((some_samples(12, seed=4).pixels // 4).astype(np.uint8), some_samples(12, seed=4).labels)
    probabilities = [
        predict_probabilities(classifier, a_spec(), samples.pixels, device="cpu")[:, -1]
        for samples in (outside, some_samples(12, seed=5))
    ]
    assert probabilities[0].mean() > probabilities[1].mean()


def test_the_loss_of_a_single_pass_is_that_of_the_target() -> None:
    source = a_source(20)
    classifier, result = train(Companion(samples=source, num_extra=1, weight=2.0), **ALONE)
    parts = [
        LabelledFeatures(
            rows=torch.from_numpy(extract_features(classifier.backbone, a_spec(), samples.pixels, device="cpu")),
            labels=torch.from_numpy(samples.labels),
            weight=weight,
            is_target=weight == 1.0,
        )
        for samples, weight in ((TARGET, 1.0), (source, 2.0 * len(TARGET) / len(source)))
    ]

    def loss(*changed: LabelledFeatures) -> float:
        found = find_prototypes(lambda: changed, len(LABELS) + 1, parts[0].rows.shape[1], device="cpu", linear=True)
        return found.loss

    assert result.history[0].train_loss == pytest.approx(loss(*parts), rel=1e-5)
    assert loss(*parts) != pytest.approx(loss(*(replace(part, is_target=True) for part in parts)), rel=1e-2)


def test_a_class_without_target_samples_has_the_sources_prototype() -> None:
    kept = np.flatnonzero(TARGET.labels != 1)
    target = ArraySamples(TARGET.pixels[kept], TARGET.labels[kept])
    samples = some_samples(20, seed=9)
    classifier, _ = train(Companion(samples=samples), target, **ALONE)
    of_source = np.flatnonzero(samples.labels == 1)
    found = predict_probabilities(classifier, a_spec(), samples.pixels[of_source], device="cpu")
    assert (found.argmax(axis=1) == 1).mean() > 0.5


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(views=0, flip=True)])
def test_resumed_equals_uninterrupted(augment: AugmentConfig) -> None:
    companion = Companion(samples=a_source(), num_extra=1, weight=0.5)
    states: list[TrainingState] = []
    changes: dict[str, Any] = {"head": "prototype", "freeze_depth": 2, "epochs": 3, "settings": {"augment": augment}}
    whole, result = train(companion, states=states, **changes)
    again, resumed = train(companion, resume=states[0], **changes)
    assert equal(whole.state_dict(), again.state_dict()) and result.history == resumed.history


def test_a_single_pass_opens_no_stream_of_a_source() -> None:
    held, stream = a_source(20), TakenStream(a_source(60), list(range(60)))
    companion = Companion(samples=held, num_extra=1)
    expected, _ = train(companion, **ALONE)
    found, _ = train(replace(companion, stream=stream), **ALONE)
    assert equal(found.state_dict(), expected.state_dict())
    assert not stream.opened and torch.isfinite(found.head.weight).all()
    train(replace(companion, stream=stream), head="prototype", freeze_depth=2)
    assert stream.opened == [0]


@pytest.mark.parametrize("depth", [1, HEAD_ONLY])
def test_outliers_have_no_prototypes(depth: int) -> None:
    companion = Companion(samples=ArraySamples(a_source().pixels, np.zeros(20, dtype=np.int64)), is_uniform=True)
    with pytest.raises(TrainingError, match="learnt as outliers must have a head that is not made of prototypes"):
        train(companion, head="prototype", freeze_depth=depth)
