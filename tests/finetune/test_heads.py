"""Heads trained together are the heads trained one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from finetune_examples import LABELS, ArraySamples, a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.finetune.classifier import Classifier, extract_features
from orchestrator.finetune.heads import Features, FeatureSplit, HeadResult, train_heads
from orchestrator.finetune.loop import fine_tune
from orchestrator.records import EpochMetrics, Hyperparameters

SPEC = a_spec()
HEAD_ONLY = 3
Maker = Callable[..., Classifier]


def features(classifier: Classifier, samples: ArraySamples) -> Features:
    rows = extract_features(classifier.backbone, SPEC, samples.pixels, device="cpu")
    return Features(rows=torch.from_numpy(rows), labels=samples.labels)


def train_together(make: Maker, runs: Sequence[Hyperparameters], **options: object) -> list[HeadResult]:
    classifier = make()
    sources = [features(classifier, samples) for samples in (some_samples(45), some_samples(20, seed=1))]
    stop = {key: options.pop(key) for key in ("should_stop",) if key in options}
    split = FeatureSplit(train=sources[:1], validation=sources[1])
    return train_heads(classifier.head, [split], runs, some_settings(**options), **stop)


def train_alone(make: Maker, run: Hyperparameters) -> list[EpochMetrics]:
    result = fine_tune(make(), SPEC, some_samples(45), some_samples(20, seed=1), run, some_settings())
    return result.history


def a_head(**changes: object) -> Hyperparameters:
    return some_hyperparameters(**{"freeze_depth": HEAD_ONLY, "epochs": 12, **changes})


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_losses_equal_those_of_separate_training(tiny_classifier: Maker, optimizer: str) -> None:
    runs = [
        a_head(optimizer=optimizer, learning_rate=rate, weight_decay=decay, epochs=epochs, batch_size=batch_size)
        for rate, decay, epochs, batch_size in [
            (1e-4, 0.0, 12, 8),
            (1e-2, 0.0, 5, 8),
            (3e-3, 1e-2, 9, 8),
            (3e-3, 0.0, 7, 16),
        ]
    ]
    together = train_together(tiny_classifier, runs)
    for run, found in zip(runs, together, strict=True):
        alone = train_alone(tiny_classifier, run)
        assert [metrics.epoch for metrics in found.history] == [metrics.epoch for metrics in alone]
        for name in ("train_loss", "val_loss"):
            one, other = ([getattr(metrics, name) for metrics in history] for history in (found.history, alone))
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
        assert [metrics.val_accuracy for metrics in found.history] == pytest.approx(
            [metrics.val_accuracy for metrics in alone]
        )


def test_a_diverging_head_leaves_the_others_as_they_were(tiny_classifier: Maker) -> None:
    calm = a_head(optimizer="sgd", learning_rate=1e-3)
    wild = a_head(optimizer="sgd", learning_rate=1e38)
    (alone,) = train_together(tiny_classifier, [calm])
    diverged, beside = train_together(tiny_classifier, [wild, calm])
    assert diverged.error is not None and diverged.error.startswith("DivergedError: the loss must stay finite")
    assert len(diverged.history) < len(beside.history) == calm.epochs
    np.testing.assert_allclose(
        [metrics.val_loss for metrics in beside.history], [metrics.val_loss for metrics in alone.history], atol=1e-6
    )


def test_a_head_that_is_stopped_keeps_its_history_and_frees_the_stack(tiny_classifier: Maker) -> None:
    runs = [a_head(learning_rate=rate) for rate in (1e-3, 2e-3)]
    asked: list[int] = []

    def stop_the_first(head: int, history: Sequence[EpochMetrics]) -> bool:
        asked.append(head)
        return head == 0 and len(history) == 3

    first, second = train_together(tiny_classifier, runs, should_stop=stop_the_first)
    assert first.stopped and len(first.history) == 3
    assert not second.stopped and len(second.history) == 12
    # The last epoch asks nobody: there is nothing left to stop.
    assert asked.count(0) == 3 and asked.count(1) == 11


def test_heads_start_from_the_given_head_and_leave_it_as_it_was(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    before = {name: tensor.clone() for name, tensor in classifier.head.state_dict().items()}
    source = features(classifier, some_samples(len(LABELS) * 5))
    train_heads(classifier.head, [FeatureSplit(train=[source], validation=source)], [a_head()], some_settings())
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.head.state_dict().items())


def test_the_seconds_of_heads_sum_to_the_wall_time(tiny_classifier: Maker) -> None:
    results = train_together(tiny_classifier, [a_head() for _ in range(4)])
    assert all(result.seconds == pytest.approx(results[0].seconds) for result in results)
    assert all(0 < result.seconds < 10 for result in results)


def test_epochs_take_turns_at_the_views(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    first, other = (features(classifier, some_samples(24, seed=seed)) for seed in (0, 5))
    runs = [a_head(epochs=3)]

    def losses(*views: Features) -> list[float]:
        split = FeatureSplit(train=views, validation=first)
        (result,) = train_heads(classifier.head, [split], runs, some_settings())
        return [metrics.train_loss for metrics in result.history]

    one, both = losses(first), losses(first, other)
    assert both[0] == one[0] and both[1] != one[1]
