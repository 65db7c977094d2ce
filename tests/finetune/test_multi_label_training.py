"""Training on any number of labels: the written loss, epochs told by their precision, and all of it resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetune_examples import (
    ArraySamples,
    ListStream,
    a_spec,
    label_sets,
    some_hyperparameters,
    some_samples,
    some_settings,
)
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss
from torch import Tensor, nn

from orchestrator.errors import TrainingError
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.cross_validation import Fold, fine_tune_folds
from orchestrator.finetune.loop import FineTuneResult, fine_tune
from orchestrator.finetune.losses import Objective
from orchestrator.finetune.multi_label import judge_label_sets, rarest_labels
from orchestrator.finetune.probe import example_batch
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import EpochMetrics

LOSS = "binary_cross_entropy"


def a_classifier() -> Classifier:
    backbone, _ = load_pretrained("none", a_spec(), seed=0)
    return new_classifier(backbone, 3, seed=0)


def run(
    classifier: Classifier,
    samples: ArraySamples | ListStream | None = None,
    *,
    validation: ArraySamples | None = None,
    resume: TrainingState | None = None,
    **changes: object,
) -> tuple[FineTuneResult, list[TrainingState]]:
    states: list[TrainingState] = []
    result = fine_tune(
        classifier,
        a_spec(),
        samples or label_sets(31),
        validation or label_sets(20, seed=1),
        some_hyperparameters(loss=LOSS, **changes),
        some_settings(),
        on_epoch=lambda end: states.append(end.state),
        resume=resume,
    )
    return result, states


def test_the_loss_and_its_gradient_are_the_written_ones() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 3, generator=generator, requires_grad=True)
    targets = torch.randint(0, 2, (5, 3), generator=generator).float()
    found = Objective(kind=LOSS).sum_of_losses(logits, targets)
    odds = logits.detach().sigmoid()
    expected = -(targets * odds.log() + (1 - targets) * (1 - odds).log()).mean(dim=1).sum()
    torch.testing.assert_close(found.detach(), expected)
    found.backward()
    torch.testing.assert_close(logits.grad, (odds - targets) / 3)


def test_strata_are_the_rarest_labels() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=np.float32)
    assert rarest_labels(labels).tolist() == [1, 0, 2, 3]
    assert rarest_labels(labels[:, :1]).tolist() == [0, 0, 0, 1]


def test_labels_are_learnt_one_by_one() -> None:
    classifier = a_classifier()
    result, _ = run(classifier, label_sets(120), freeze_depth=0, epochs=30, learning_rate=1e-2)
    validation = label_sets(60, seed=2)
    probabilities = predict_probabilities(classifier, a_spec(), validation.pixels, device="cpu")
    said = probabilities >= 0.5
    assert (said == (validation.labels > 0)).mean() > 0.8
    assert {0, 1, 2} <= set(said.sum(axis=1).tolist()), "a softmax gives each image one label"
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_an_epoch_is_told_by_its_binary_cross_entropy_and_mean_average_precision() -> None:
    classifier, validation = a_classifier(), label_sets(70, seed=1)
    result, _ = run(classifier, validation=validation)
    kept = result.history[result.best_epoch - 1]
    probabilities = predict_probabilities(classifier, a_spec(), validation.pixels, device="cpu").astype(np.float64)
    assert kept.val_accuracy == pytest.approx(average_precision_score(validation.labels, probabilities), abs=1e-6)
    losses = [log_loss(validation.labels[:, k], probabilities[:, k]) for k in range(3)]
    assert kept.val_loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.best_epoch == 1 + int(np.argmax([metrics.val_accuracy for metrics in result.history]))


def test_validation_without_any_label_has_a_precision_of_0_and_is_told_by_its_loss() -> None:
    validation = label_sets(10, seed=1)
    bare = ArraySamples(validation.pixels, np.zeros_like(validation.labels))
    result, _ = run(a_classifier(), validation=bare)
    assert {metrics.val_accuracy for metrics in result.history} == {0.0}
    assert result.best_epoch == 1 + int(np.argmin([metrics.val_loss for metrics in result.history]))


def test_a_label_that_validation_lacks_has_no_say() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]], dtype=np.float32)
    logits = torch.tensor([[2.0, 0.0], [3.0, 0.0], [1.0, 0.0]])

    def logits_of(positions: NDArray[np.int64]) -> Tensor:
        return logits[torch.from_numpy(positions)]

    _, precision = judge_label_sets(logits_of, np.arange(3), labels, "cpu")
    assert precision == pytest.approx(average_precision_score(labels[:, 0], logits[:, 0]))


METHODS: dict[str, dict[str, object]] = {
    "gradual": {"strategy": "gradual", "freeze_depth": 1, "epochs": 3},
    "held head": {"strategy": "feature_then_network", "freeze_depth": 1, "epochs": 4, "ema_decay": 0.5},
    "mixup": {"mixing": "mixup"},
    "cutmix": {"mixing": "cutmix"},
    "adversarial": {"adversarial": 0.01},
    "head alone": {"freeze_depth": 3, "dropout": 0.2, "regularizer": "l2_sp"},
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_methods_train_and_resume_bit_for_bit(method: dict[str, object]) -> None:
    whole, cut = a_classifier(), a_classifier()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    result, states = run(whole, **method)
    again, _ = run(cut, resume=states[0], **method)
    assert again.history == result.history
    tensors = whole.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in cut.state_dict().items())
    frozen = f"backbone.stages.{0}."
    changed = {name for name, tensor in tensors.items() if not torch.equal(tensor, before[name])}
    assert "head.weight" in changed and not any(name.startswith(frozen) for name in changed)


def test_folds_find_what_each_training_finds_alone() -> None:
    found: list[list[EpochMetrics]] = []
    folds = [Fold(train=label_sets(20, seed=s), validation=label_sets(12, seed=s + 5)) for s in (1, 2)]
    hyperparameters = some_hyperparameters(loss=LOSS)
    fine_tune_folds(
        a_classifier,
        a_spec(),
        folds,
        hyperparameters,
        some_settings(),
        on_epoch=lambda epoch: found.append(list(epoch)),
    )
    for number, fold in enumerate(folds):
        assert isinstance(fold.train, ArraySamples) and isinstance(fold.validation, ArraySamples)
        alone, _ = run(a_classifier(), fold.train, validation=fold.validation)
        assert [epoch[number] for epoch in found] == alone.history


def test_a_network_that_was_trained_for_classes_gives_probabilities_that_sum_to_one_again() -> None:
    classifier = a_classifier()
    run(classifier)
    assert classifier.multi_label
    fine_tune(classifier, a_spec(), some_samples(20), some_samples(12, seed=1), some_hyperparameters(), some_settings())
    probabilities = predict_probabilities(classifier, a_spec(), some_samples(5).pixels, device="cpu")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)


def test_a_probe_takes_label_sets_as_they_are() -> None:
    _, pixels, labels = example_batch(label_sets(4), 6, "cpu")
    assert pixels.shape[0] == 6 and labels.shape == (6, 3)
    assert torch.isfinite(nn.functional.cross_entropy(torch.zeros(6, 3), labels))


def test_labels_that_do_not_fit_the_loss_are_refused() -> None:
    with pytest.raises(TrainingError, match="must be the loss of samples with any number of labels"):
        run(a_classifier(), some_samples(12))
    with pytest.raises(TrainingError, match="must be the loss of samples with any number of labels"):
        fine_tune(a_classifier(), a_spec(), label_sets(12), label_sets(8), some_hyperparameters(), some_settings())
    wide = label_sets(8)
    wide = ArraySamples(wide.pixels, np.concatenate([wide.labels, wide.labels], axis=1))
    with pytest.raises(TrainingError, match="indicators of 3 classes"):
        run(a_classifier(), wide)
