"""What changed images do to a step of a training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from finetune_examples import a_spec, some_hyperparameters, some_samples, some_settings
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from orchestrator.finetune.batches import plan_batches
from orchestrator.finetune.classifier import Classifier, preprocess
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.mixing import MixingName, mix, mixing_generator

Maker = Callable[..., Classifier]
SPEC = a_spec()
TRAIN = some_samples(9)
RATE, EPSILON = 0.5, 0.05
LOADER_SEED = 11


def moved(start: Classifier, classifier: Classifier, **changes: object) -> list[Tensor]:
    """Give how far one step of SGD on all samples goes, by weight."""
    recipe = {"freeze_depth": 0, "batch_size": 16, "epochs": 1, "optimizer": "sgd", "learning_rate": RATE}
    fine_tune(
        classifier,
        SPEC,
        TRAIN,
        some_samples(6, seed=1),
        some_hyperparameters(**recipe, **changes),
        some_settings(loader_seed=LOADER_SEED),
    )
    return [one.detach() - other for one, other in zip(start.parameters(), classifier.parameters(), strict=True)]


def slopes(classifier: Classifier, loss_of: Callable[[Classifier], Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss_of(classifier.eval()), list(classifier.parameters())))


def assert_a_step_of(moves: list[Tensor], slope: list[Tensor]) -> None:
    for move, expected in zip(moves, slope, strict=True):
        torch.testing.assert_close(move, RATE * expected, rtol=1e-3, atol=1e-5)


def test_an_image_and_its_adversary_are_each_half_of_the_loss(tiny_classifier: Maker) -> None:
    images, labels = preprocess(TRAIN.pixels, SPEC, "cpu"), torch.from_numpy(TRAIN.labels)

    def loss_of(classifier: Classifier) -> Tensor:
        clean = images.clone().requires_grad_()
        (direction,) = torch.autograd.grad(cross_entropy(classifier(clean), labels), clean)
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (SPEC.mean, SPEC.std))
        attacked = ((images * std + mean + EPSILON * direction.sign()).clamp(0, 1) - mean) / std
        return (cross_entropy(classifier(images), labels) + cross_entropy(classifier(attacked), labels)) / 2

    moves = moved(tiny_classifier(), tiny_classifier(), adversarial=EPSILON)
    assert_a_step_of(moves, slopes(tiny_classifier(), loss_of))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_step_on_mixed_images_is_that_of_their_mixed_targets(tiny_classifier: Maker, kind: MixingName) -> None:
    (order,) = plan_batches(len(TRAIN), 16, LOADER_SEED, 1)
    images = preprocess(TRAIN.pixels[order], SPEC, "cpu")
    targets = one_hot(torch.from_numpy(TRAIN.labels[order]), 3).float()
    mixed, said = mix(images, targets, kind, 1.0, mixing_generator(LOADER_SEED, 1, 0))
    assert not torch.equal(mixed, images)
    moves = moved(tiny_classifier(), tiny_classifier(), mixing=kind, mixing_alpha=1.0)
    assert_a_step_of(moves, slopes(tiny_classifier(), lambda found: cross_entropy(found(mixed), said)))
