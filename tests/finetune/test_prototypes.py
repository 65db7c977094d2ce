"""Prototypes are class means of unit features, and the head that is made of them is linear."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.finetune.cosine import CosineHead
from orchestrator.finetune.prototypes import LabelledFeatures, Prototypes, find_prototypes

NUM_CLASSES, DIM = 4, 6


def a_cloud(per_class: int, *, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Features around a direction of each class, of lengths that differ by a factor of ten."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(NUM_CLASSES, DIM))
    labels = np.repeat(np.arange(NUM_CLASSES), per_class)
    rows = centres[labels] + spread * generator.normal(size=(len(labels), DIM))
    rows *= generator.uniform(1, 10, size=(len(labels), 1))
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(labels)


def prototypes_of(rows: Tensor, labels: Tensor, *, batch: int = 5, linear: bool = True) -> Prototypes:
    def features() -> Iterator[LabelledFeatures]:
        for some, of_classes in zip(rows.split(batch), labels.split(batch), strict=True):
            yield LabelledFeatures(rows=some, labels=of_classes)

    return find_prototypes(features, NUM_CLASSES, DIM, device="cpu", linear=linear)


def nearest_by_hand(rows: Tensor, labels: Tensor, asked: Tensor) -> list[int]:
    """Give the class whose mean unit feature, scaled to length 1, is nearest to each unit feature."""
    units = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    means = np.stack([units[labels.numpy() == label].mean(axis=0) for label in range(NUM_CLASSES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    wanted = (asked / asked.norm(dim=1, keepdim=True)).numpy()
    return [int(np.argmin(((row - means) ** 2).sum(axis=1))) for row in wanted]


@pytest.mark.parametrize("per_class", [1, 5])
def test_a_linear_head_gives_the_nearest_prototype(per_class: int) -> None:
    rows, labels = a_cloud(per_class)
    asked, _ = a_cloud(50, seed=1)
    head = nn.Linear(DIM, NUM_CLASSES)
    prototypes_of(rows, labels).write_to(head)
    expected = nearest_by_hand(rows, labels, asked)
    assert head(asked).argmax(dim=1).tolist() == expected and len(set(expected)) == NUM_CLASSES


def test_the_linear_head_has_the_probabilities_of_scaled_cosines() -> None:
    rows, labels = a_cloud(5)
    found, head = prototypes_of(rows, labels), nn.Linear(DIM, NUM_CLASSES)
    found.write_to(head)
    asked, _ = a_cloud(10, seed=1)
    logits = found.scale / found.length * asked.double() @ found.directions.T
    torch.testing.assert_close(head(asked).softmax(dim=1), logits.softmax(dim=1).float(), rtol=1e-4, atol=1e-5)


def test_a_cosine_head_starts_from_the_prototypes() -> None:
    rows, labels = a_cloud(5)
    found, head = prototypes_of(rows, labels, linear=False), CosineHead(DIM, NUM_CLASSES)
    found.write_to(head)
    asked, _ = a_cloud(20, seed=1)
    assert head(asked).argmax(dim=1).tolist() == nearest_by_hand(rows, labels, asked)
    assert head.scale.item() == pytest.approx(found.scale)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(NUM_CLASSES))


def test_batches_do_not_matter() -> None:
    rows, labels = a_cloud(5)
    whole, parts = prototypes_of(rows, labels, batch=100), prototypes_of(rows, labels, batch=3)
    torch.testing.assert_close(whole.directions, parts.directions)
    assert whole.scale == parts.scale and whole.loss == pytest.approx(parts.loss)


def test_the_scale_is_that_of_the_least_loss_without_own_parts() -> None:
    rows, labels = a_cloud(6)
    units = torch.nn.functional.normalize(rows.double())

    def loss_at(scale: float) -> float:
        losses = []
        for place in range(len(rows)):
            rest = [other for other in range(len(rows)) if other != place]
            means = [units[[i for i in rest if labels[i] == label]].mean(dim=0) for label in range(NUM_CLASSES)]
            cosines = torch.stack([torch.nn.functional.cosine_similarity(units[place], mean, dim=0) for mean in means])
            losses.append(-(scale * cosines).log_softmax(dim=0)[labels[place]].item())
        return float(np.mean(losses))

    found = prototypes_of(rows, labels, linear=False)
    assert found.loss == pytest.approx(loss_at(found.scale))
    assert loss_at(found.scale) < min(loss_at(found.scale / 1.3), loss_at(found.scale * 1.3))


def beside(parts: Sequence[tuple[Tensor, Tensor, float]], *, linear: bool = False) -> Prototypes:
    """Find the prototypes of parts with their weights; the first part is the target's."""

    def features() -> Iterator[LabelledFeatures]:
        for number, (rows, labels, weight) in enumerate(parts):
            yield LabelledFeatures(rows=rows, labels=labels, weight=weight, is_target=number == 0)

    return find_prototypes(features, NUM_CLASSES, DIM, device="cpu", linear=linear)


@pytest.mark.parametrize("linear", [True, False])
def test_weights_are_those_of_the_mean_of_the_scale_and_of_the_loss_that_chooses_it(linear: bool) -> None:
    (rows, labels), (others, of_others), weight = a_cloud(3), a_cloud(5, seed=2, spread=2.0), 0.35
    # The source alone has class 3, and the target alone class 0.
    kept, of_source = labels < 3, of_others > 0
    rows, labels, others, of_others = rows[kept], labels[kept], others[of_source], of_others[of_source]
    found = beside([(rows, labels, 1.0), (others, of_others, weight)], linear=linear)
    everyone = torch.cat([rows, others]).double().numpy()
    classes, counts = torch.cat([labels, of_others]).numpy(), np.repeat([1.0, weight], [len(rows), len(others)])
    lengths = np.linalg.norm(everyone, axis=1)
    units = everyone / lengths[:, None]
    factors = lengths / np.average(lengths, weights=counts) if linear else np.ones(len(units))

    def direction(label: int, without: int | None = None) -> Any:
        mine = [place for place in np.flatnonzero(classes == label) if place != without]
        mean = np.average(units[mine], axis=0, weights=counts[mine])
        return mean / np.linalg.norm(mean)

    def losses(scale: float) -> Any:
        every = []
        for place, label in enumerate(classes):
            logits = [scale * factors[place] * units[place] @ direction(k, place) for k in range(NUM_CLASSES)]
            every.append(np.log(np.exp(logits).sum()) - logits[label])
        return np.array(every)

    np.testing.assert_allclose(found.directions.numpy(), [direction(k) for k in range(NUM_CLASSES)], atol=1e-12)
    assert found.length == pytest.approx(np.average(lengths, weights=counts))
    tried = {
        scale: np.average(losses(scale), weights=counts) for scale in np.array([2**-0.25, 1, 2**0.25]) * found.scale
    }
    assert min(tried, key=lambda scale: tried[scale]) == found.scale
    assert found.loss == pytest.approx(losses(found.scale)[: len(rows)].mean())


def test_what_has_no_target_sample_to_judge_leaves_its_loss_unknown() -> None:
    (rows, labels), first = a_cloud(4), torch.arange(0, 16, 4)
    mine = first[:2]
    others = torch.tensor([place for place in range(16) if labels[place] > 1])
    found = beside([(rows[mine], labels[mine], 1.0), (rows[others], labels[others], 1.0)])
    assert found.loss == pytest.approx(math.log(NUM_CLASSES)) and found.present.all()


def test_noise_makes_the_scale_small() -> None:
    clear, noisy = (prototypes_of(*a_cloud(8, spread=spread)).scale for spread in (0.1, 3.0))
    assert noisy < clear / 4


def test_one_image_a_class_leaves_the_scale_unknown() -> None:
    found = prototypes_of(*a_cloud(1))
    assert found.scale == 10.0 and found.loss == pytest.approx(math.log(NUM_CLASSES))


@pytest.mark.parametrize("head", [nn.Linear(DIM, NUM_CLASSES), CosineHead(DIM, NUM_CLASSES)])
def test_a_class_without_samples_has_finite_logits(head: nn.Linear) -> None:
    rows, labels = a_cloud(5)
    kept = labels != 2
    found = prototypes_of(rows[kept], labels[kept], linear=not isinstance(head, CosineHead))
    found.write_to(head)
    logits = head(rows[~kept])
    assert found.present.tolist() == [True, True, False, True] and torch.isfinite(logits).all()
    if not isinstance(head, CosineHead):
        assert not (logits.argmax(dim=1) == 2).any()


def test_features_of_length_zero_are_taken() -> None:
    rows, labels = a_cloud(3)
    found = prototypes_of(torch.zeros_like(rows), labels)
    head = nn.Linear(DIM, NUM_CLASSES)
    found.write_to(head)
    assert torch.isfinite(head(rows)).all() and math.isfinite(found.loss)


def clusters(means: Tensor, count: int, seed: int) -> LabelledFeatures:
    """Give so many noisy features of each class."""
    labels = torch.arange(len(means)).repeat(count)
    noise = torch.randn(len(labels), means.shape[1], generator=torch.Generator().manual_seed(seed))
    return LabelledFeatures(rows=means[labels] + 1.5 * noise, labels=labels)


def mean_loss(found: Prototypes, part: LabelledFeatures, scale: float) -> float:
    logits = scale * functional.normalize(part.rows.double()) @ found.directions.T
    return float(functional.cross_entropy(logits, part.labels))


@pytest.mark.parametrize("weight", [0.01, 0.1, 1.0])
def test_one_image_a_class_beside_a_source_has_a_scale_that_suits_images_it_has_not_seen(weight: float) -> None:
    means = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
    target, source = clusters(means, 1, seed=2), clusters(means, 50, seed=3)
    parts = [target, replace(source, weight=weight * len(target.rows) / len(source.rows), is_target=False)]
    found = find_prototypes(lambda: parts, 7, 64, device="cpu", linear=False)
    unseen = clusters(means, 100, seed=4)
    best = min(mean_loss(found, unseen, 2 ** (step / 4)) for step in range(25))
    assert mean_loss(found, unseen, found.scale) < 1.1 * best


def test_the_scale_is_unknown_where_no_class_of_the_target_can_be_judged() -> None:
    means = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    target, rejected = clusters(means[:7], 1, seed=2), clusters(means[7:], 200, seed=3)
    outliers = replace(rejected, labels=rejected.labels + 7, weight=7 / 200, is_target=False)
    found = find_prototypes(lambda: [target, outliers], 8, 64, device="cpu", linear=False)
    assert (found.scale, found.loss) == (10.0, pytest.approx(math.log(8)))
    twice = clusters(means[:7], 2, seed=2)
    assert find_prototypes(lambda: [twice, outliers], 8, 64, device="cpu", linear=False).scale != 10.0
