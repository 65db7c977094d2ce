"""Folds trained in step find what each finds alone, and count by their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from finetune_examples import a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.finetune.classifier import Classifier, extract_features
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.cross_validation import Fold, fine_tune_folds
from orchestrator.finetune.epochs import FoldHistory
from orchestrator.finetune.heads import Features, FeatureSplit, train_heads
from orchestrator.finetune.loop import fine_tune
from orchestrator.records import EpochMetrics, Hyperparameters

SPEC = a_spec(dropout=0.3)
Maker = Callable[..., Classifier]
FOLDS = [
    Fold(train=some_samples(40, seed=seed, noisy_labels=seed == 2), validation=some_samples(20, seed=10 + seed))
    for seed in range(3)
]


def in_step(make: Maker, recipe: Hyperparameters, folds: Sequence[Fold] = FOLDS) -> list[list[EpochMetrics]]:
    """Give the history of every fold."""
    told: list[Sequence[EpochMetrics]] = []
    fine_tune_folds(lambda: make(dropout=0.3), SPEC, folds, recipe, some_settings(), on_epoch=told.append)
    return [list(history) for history in zip(*told, strict=True)]


def alone(make: Maker, recipe: Hyperparameters, fold: Fold) -> list[EpochMetrics]:
    return fine_tune(make(dropout=0.3), SPEC, fold.train, fold.validation, recipe, some_settings()).history


@pytest.mark.parametrize("freeze_depth", [0, 1, 3])
def test_every_fold_finds_bitwise_what_it_finds_alone(tiny_classifier: Maker, freeze_depth: int) -> None:
    recipe = some_hyperparameters(freeze_depth=freeze_depth, epochs=3, dropout=0.2)
    found = in_step(tiny_classifier, recipe)
    assert found == [alone(tiny_classifier, recipe, fold) for fold in FOLDS]
    assert found[0] != found[1]


def test_the_fold_whose_patience_ends_first_ends_all(tiny_classifier: Maker) -> None:
    recipe = some_hyperparameters(epochs=40, patience=2, learning_rate=1e-2)
    lengths = [len(alone(tiny_classifier, recipe, fold)) for fold in FOLDS]
    assert len(set(lengths)) > 1
    assert [len(history) for history in in_step(tiny_classifier, recipe)] == [min(lengths)] * 3


@pytest.mark.parametrize("freeze_depth", [1, 3])
def test_every_fold_has_the_source_beside_it(tiny_classifier: Maker, freeze_depth: int) -> None:
    recipe = some_hyperparameters(freeze_depth=freeze_depth, epochs=3, head="cosine")
    companion = Companion(samples=some_samples(20, seed=9))
    told: list[Sequence[EpochMetrics]] = []
    given = (SPEC, FOLDS, recipe, some_settings())
    fine_tune_folds(tiny_classifier, *given, on_epoch=told.append, companion=companion)
    for fold, found in zip(FOLDS, zip(*told, strict=True), strict=True):
        samples = (fold.train, fold.validation)
        one = fine_tune(tiny_classifier(), SPEC, *samples, recipe, some_settings(), companion=companion)
        without = fine_tune(tiny_classifier(), SPEC, *samples, recipe, some_settings())
        assert list(found) == one.history != without.history


def an_epoch(epoch: int, accuracy: float, loss: float = 1.0) -> EpochMetrics:
    return EpochMetrics(epoch=epoch, train_loss=2 * loss, val_loss=loss, val_accuracy=accuracy)


def test_the_standard_error_is_that_of_the_folds_in_the_best_mean_epoch() -> None:
    history = FoldHistory()
    for epoch, accuracies in enumerate([(0.1, 0.9, 0.2), (0.6, 0.7, 0.8), (0.9, 0.4, 0.5)], start=1):
        mean = history.append([an_epoch(epoch, accuracy, loss=epoch) for accuracy in accuracies])
        assert mean.val_accuracy == pytest.approx(sum(accuracies) / 3) and mean.val_loss == epoch
    assert history.standard_error("val_accuracy") == pytest.approx(0.1 / np.sqrt(3))
    assert history.standard_error("val_loss") == 0.0


def test_one_split_is_its_own_mean_and_has_no_standard_error() -> None:
    history = FoldHistory()
    assert history.standard_error("val_loss") is None
    epochs = [an_epoch(number, 0.1 * number, loss=1 / 3) for number in (1, 2)]
    assert [history.append([epoch]) for epoch in epochs] == epochs == history.means
    assert history.standard_error("val_accuracy") is None


def test_heads_in_stacks_find_the_mean_over_folds_of_separate_stacks(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    splits = [
        FeatureSplit(train=[features(classifier, fold.train)], validation=features(classifier, fold.validation))
        for fold in FOLDS
    ]
    runs = [some_hyperparameters(freeze_depth=3, epochs=epochs, learning_rate=3e-3) for epochs in (3, 6)]
    together = train_heads(classifier.head, splits, runs, some_settings())
    apart = [train_heads(classifier.head, [split], runs, some_settings()) for split in splits]
    for number, result in enumerate(together):
        values = np.array([[metrics.val_accuracy for metrics in found[number].history] for found in apart])
        means = [metrics.val_accuracy for metrics in result.history]
        np.testing.assert_allclose(means, values.mean(axis=0), rtol=1e-12)
        errors = values.std(axis=0, ddof=1) / np.sqrt(3)
        assert result.standard_error == pytest.approx(errors[result.best_epoch - 1])
        assert all(found[number].standard_error is None for found in apart)


def test_a_head_is_stopped_on_all_folds_by_its_mean(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    splits = [
        FeatureSplit(train=[features(classifier, fold.train)], validation=features(classifier, fold.validation))
        for fold in FOLDS
    ]
    asked: list[tuple[int, int]] = []

    def stop(head: int, history: Sequence[EpochMetrics]) -> bool:
        asked.append((head, len(history)))
        return head == 0 and len(history) == 2

    runs = [some_hyperparameters(freeze_depth=3, epochs=4) for _ in range(2)]
    stopped, whole = train_heads(classifier.head, splits, runs, some_settings(), should_stop=stop)
    assert stopped.stopped and len(stopped.history) == 2 and len(whole.history) == 4
    assert asked == [(0, 1), (1, 1), (0, 2), (1, 2), (1, 3)]


def features(classifier: Classifier, samples: object) -> Features:
    rows = extract_features(classifier.backbone, a_spec(), samples.pixels, device="cpu")
    return Features(rows=torch.from_numpy(rows), labels=samples.labels)
