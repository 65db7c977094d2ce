"""Cosine and prototype heads through `fine_tune`: what they start from, what is trained, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_examples import LABELS, ListStream, a_spec, some_hyperparameters, some_samples, some_settings
from test_models import a_card

from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, extract_features, predict_probabilities
from orchestrator.finetune.cosine import CosineHead
from orchestrator.finetune.explanations import heat_maps
from orchestrator.finetune.loop import EpochEnd, FineTuneResult, fine_tune
from orchestrator.finetune.models import load_model, save_model

SPEC = a_spec()
HEAD_ONLY = 3
Maker = Callable[..., Classifier]


def tune(classifier: Classifier, *, stream: bool = False, **changes: object) -> FineTuneResult:
    settings = {name: changes.pop(name) for name in ("batch_norm",) if name in changes}
    samples = some_samples(24)
    batches = [list(range(start, start + 8)) for start in (0, 8, 16)]
    train = ListStream(samples, batches, len(samples)) if stream else samples
    run, how = some_hyperparameters(**changes), some_settings(**settings)
    return fine_tune(classifier, SPEC, train, some_samples(12, seed=1), run, how)


def nearest(classifier: Classifier) -> list[int]:
    """Give the class of the nearest mean direction for the validation samples."""
    train, asked = (
        extract_features(classifier.backbone, SPEC, samples.pixels, device="cpu").astype(np.float64)
        for samples in (some_samples(24), some_samples(12, seed=1))
    )
    labels = some_samples(24).labels
    units = train / np.linalg.norm(train, axis=1, keepdims=True)
    means = np.stack([units[labels == label].mean(axis=0) for label in range(len(LABELS))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return (asked @ means.T).argmax(axis=1).tolist()


@pytest.mark.parametrize("stream", [False, True])
def test_prototypes_on_frozen_stages_need_one_epoch(tiny_classifier: Maker, stream: bool) -> None:
    classifier = tiny_classifier()
    before = {name: tensor.clone() for name, tensor in classifier.backbone.state_dict().items()}
    result = tune(classifier, head="prototype", freeze_depth=HEAD_ONLY, epochs=20, stream=stream)
    assert len(result.history) == result.best_epoch == 1
    found = predict_probabilities(classifier, SPEC, some_samples(12, seed=1).pixels, device="cpu")
    assert found.argmax(axis=1).tolist() == nearest(classifier)
    assert type(classifier.head) is torch.nn.Linear
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.backbone.state_dict().items())


def test_rates_and_balance_do_not_change_prototypes(tiny_classifier: Maker) -> None:
    histories = [
        tune(tiny_classifier(), head="prototype", freeze_depth=HEAD_ONLY, **changes).history
        for changes in ({}, {"learning_rate": 1.0, "weight_decay": 0.5, "balanced": True, "ema_decay": 0.9})
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("changes", [{}, {"mixing": "mixup"}, {"ema_decay": 0.9}, {"strategy": "probe_then_finetune"}])
@pytest.mark.parametrize("head", ["prototype", "cosine"])
def test_free_stages_are_trained_from_the_prototypes(tiny_classifier: Maker, head: str, changes: object) -> None:
    assert isinstance(changes, dict)
    classifier = tiny_classifier()
    expected = nearest(classifier)
    result = tune(classifier, head=head, freeze_depth=1, learning_rate=1e-9, epochs=2, **changes)
    assert len(result.history) == 2
    found = predict_probabilities(classifier, SPEC, some_samples(12, seed=1).pixels, device="cpu")
    # A rate of next to nothing leaves the start to be seen.
    assert found.argmax(axis=1).tolist() == expected


def test_a_cosine_head_learns_its_rows_and_its_scale(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    start = tune(classifier, head="cosine", freeze_depth=HEAD_ONLY, learning_rate=1e-9, epochs=1)
    assert isinstance(classifier.head, CosineHead)
    weight, scale = classifier.head.weight.detach().clone(), classifier.head.scale.item()
    trained = tiny_classifier()
    result = tune(trained, head="cosine", freeze_depth=HEAD_ONLY, learning_rate=1e-2, epochs=15)
    assert isinstance(trained.head, CosineHead)
    assert not torch.allclose(trained.head.weight, weight) and trained.head.scale.item() != scale
    assert result.history[-1].train_loss < start.history[0].train_loss


def test_cosine_logits_ignore_lengths_and_have_gradients() -> None:
    torch.manual_seed(0)
    head = CosineHead(5, 3).double()
    features = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(head(features), head(7 * features))
    by_hand = torch.nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), 10 * by_hand)
    assert torch.autograd.gradcheck(lambda inputs: head(inputs), (features,))
    head(features).sum().backward()
    assert head.weight.grad is not None and head.scale.grad is not None
    # Along its own direction a row has no slope: only directions count.
    torch.testing.assert_close((head.weight.grad * head.weight).sum(dim=1), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("head", ["cosine", "prototype"])
def test_a_saved_model_predicts_the_same_and_can_be_explained(
    tiny_classifier: Maker, tmp_path: Path, head: str
) -> None:
    classifier = tiny_classifier()
    tune(classifier, head=head, freeze_depth=2)
    card = a_card(SPEC, hyperparameters=some_hyperparameters(head=head, freeze_depth=2))
    save_model(str(tmp_path), classifier, card)
    loaded, _ = load_model(str(tmp_path))
    asked = some_samples(6, seed=4)
    expected, found = (predict_probabilities(model, SPEC, asked.pixels, device="cpu") for model in (classifier, loaded))
    np.testing.assert_array_equal(found, expected)
    maps = heat_maps(loaded, SPEC, asked.pixels, asked.labels)
    assert maps.shape == (6, 16, 16) and np.isfinite(maps).all() and maps.max() == 1


@pytest.mark.parametrize("head", ["cosine", "prototype"])
def test_a_resumed_training_ends_as_one_that_was_not_cut_short(tiny_classifier: Maker, head: str) -> None:
    states: list[TrainingState] = []

    def run(classifier: Classifier, resume: TrainingState | None = None) -> dict[str, torch.Tensor]:
        def keep(end: EpochEnd) -> None:
            states.append(end.state)

        changes = {"regularizer": "l2_sp", "regularizer_scope": "both", "regularizer_weight": 0.5}
        recipe = some_hyperparameters(head=head, freeze_depth=2, epochs=4, **changes)
        train, validation = some_samples(24), some_samples(12, seed=1)
        fine_tune(classifier, SPEC, train, validation, recipe, some_settings(), on_epoch=keep, resume=resume)
        return classifier.state_dict()

    whole = run(tiny_classifier())
    resumed = run(tiny_classifier(), states[1])
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_penalty_pulls_the_head_to_its_prototypes(tiny_classifier: Maker) -> None:
    def moved(weight: float) -> float:
        heads = []
        for rate in (1e-9, 1e-2):
            classifier = tiny_classifier()
            pull = {"regularizer": "l2_sp", "regularizer_scope": "head", "regularizer_weight": weight}
            tune(classifier, head="prototype", freeze_depth=2, learning_rate=rate, epochs=10, **pull)
            heads.append(classifier.head.weight.detach())
        return float((heads[1] - heads[0]).norm())

    assert moved(100.0) < moved(0.0) / 3
