import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from orchestrator.finetune.mixing import MixingName, mix, mixing_generator

KINDS: list[MixingName] = ["mixup", "cutmix"]
SIZE = 12

kinds = st.sampled_from(KINDS)
steps = st.integers(0, 10_000)
alphas = st.sampled_from([0.2, 1.0, 4.0])


def a_batch(count: int) -> tuple[Tensor, Tensor]:
    """Images whose pixels all hold their own number, each of a class of its own: targets tell who was mixed."""
    images = torch.arange(1.0, count + 1).reshape(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    return images.clone(), one_hot(torch.arange(count), count).float()


@given(kinds, alphas, steps, st.integers(1, 9))
def test_targets_say_how_much_of_which_image_is_there(kind: MixingName, alpha: float, step: int, count: int) -> None:
    images, targets = a_batch(count)
    mixed, said = mix(images, targets, kind, alpha, mixing_generator(3, 1, step))
    values = torch.arange(1.0, count + 1)
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), said @ values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said.sum(dim=1), torch.ones(count))
    assert mixed.shape == images.shape and (said >= 0).all()


@given(kinds, steps, st.integers(2, 9))
def test_every_sample_is_a_partner_once(kind: MixingName, step: int, count: int) -> None:
    images, targets = a_batch(count)
    _, said = mix(images, targets, kind, 1.0, mixing_generator(3, 1, step))
    torch.testing.assert_close(said.sum(dim=0), torch.ones(count))


@given(kinds, steps)
def test_ranks_mix_parts_of_unequal_size_by_the_same_share(kind: MixingName, step: int) -> None:
    found = []
    for count in (5, 8):
        _, said = mix(*a_batch(count), kind, 1.0, mixing_generator(3, 1, step))
        found.append({round(float(value), 5) for value in said.flatten()} - {0.0, 1.0})
    shares = set.union(*found)
    assert len(shares) <= 2 and sum(shares) == pytest.approx(len(shares) / 2, abs=1e-4)


@given(steps)
def test_ranks_cut_the_same_box(step: int) -> None:
    boxes = []
    for count in (5, 8):
        images, targets = a_batch(count)
        mixed, _ = mix(images, targets, "cutmix", 1.0, mixing_generator(3, 1, step))
        boxes.append((mixed != images).any(dim=0).any(dim=0))
    # A sample that is its own partner shows no box.
    if boxes[0].any() and boxes[1].any():
        assert torch.equal(*boxes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_mixed_by_its_seed_epoch_and_step_alone(kind: MixingName) -> None:
    def mixed(seed: int, epoch: int, step: int) -> bytes:
        images, targets = mix(*a_batch(8), kind, 1.0, mixing_generator(seed, epoch, step))
        return images.numpy().tobytes() + targets.numpy().tobytes()

    assert mixed(1, 2, 3) == mixed(1, 2, 3)
    assert len({mixed(1, 2, 3), mixed(2, 2, 3), mixed(1, 3, 3), mixed(1, 2, 0)}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_sample_and_the_given_batch_stay_as_they_are(kind: MixingName) -> None:
    images, targets = a_batch(1)
    mixed, said = mix(images, targets, kind, 1.0, mixing_generator(0, 1, 1))
    torch.testing.assert_close(mixed, images)
    torch.testing.assert_close(said, targets)
    images, targets = a_batch(6)
    mix(images, targets, kind, 1.0, mixing_generator(0, 1, 1))
    assert torch.equal(images, a_batch(6)[0]) and torch.equal(targets, a_batch(6)[1])


@pytest.mark.parametrize(("alpha", "least", "most"), [(0.1, 0.6, 1.0), (10.0, 0.0, 0.02)])
def test_a_small_alpha_keeps_images_nearly_whole(alpha: float, least: float, most: float) -> None:
    mixed = [mix(*a_batch(8), "mixup", alpha, mixing_generator(0, 1, step))[1] for step in range(200)]
    shares = np.array([float(said.fill_diagonal_(0).max()) for said in mixed])
    assert least <= np.mean((shares < 0.05) | (shares > 0.95)) <= most


def a_swap(step: int, kind: MixingName) -> tuple[float, list[int], bool]:
    """Give the share and the centre that a step draws for two images, and whether it exchanges them."""
    generator = mixing_generator(3, 1, step)
    kept = float(generator.beta(1.0, 1.0))
    centre = [int(generator.integers(SIZE)) for _ in range(2)] if kind == "cutmix" else []
    return kept, centre, bool(generator.permutation(2)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_two_images_that_are_exchanged_are_mixed_as_torchvision_does(kind: MixingName) -> None:
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.rand(2, 3, SIZE, SIZE, generator=generator), torch.eye(2)
    exchanged = [step for step in range(60) if a_swap(step, kind)[2]]
    assert len(exchanged) > 20
    for step in exchanged:
        kept, centre, _ = a_swap(step, kind)
        params: dict[str, Any] = {"labels": targets, "batch_size": 2, "lam": kept}
        if kind == "cutmix":
            half = int(0.5 * math.sqrt(1 - kept) * SIZE)
            top, left = (max(place - half, 0) for place in centre)
            bottom, right = (min(place + half, SIZE) for place in centre)
            params |= {"box": (left, top, right, bottom), "lam_adjusted": 1 - (right - left) * (bottom - top) / SIZE**2}
        theirs = v2.MixUp(num_classes=2) if kind == "mixup" else v2.CutMix(num_classes=2)
        mixed, said = mix(images, targets, kind, 1.0, mixing_generator(3, 1, step))
        torch.testing.assert_close(mixed, theirs.transform(images, params))
        torch.testing.assert_close(said, theirs.transform(targets, params))
