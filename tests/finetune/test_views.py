"""A sample's variants are its own: the same in every batch, different in every draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetune_examples import some_hyperparameters, some_samples, some_settings
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

from orchestrator.config import AugmentConfig
from orchestrator.finetune.views import draw_chances, draw_of, vary

PIXELS = some_samples(12).pixels
KEYS = np.arange(100, 112, dtype=np.uint64)
ALL = AugmentConfig(views=4, flip=True, crop=0.2, colour=0.3)
AFRESH = ALL.model_copy(update={"views": 0})
STRONG = AugmentConfig(views=0, flip=True, crop=0.1, colour=0.2, randaugment=2, magnitude=15, erasing=0.5)


def test_the_first_fixed_view_is_the_image_itself() -> None:
    np.testing.assert_array_equal(vary(PIXELS, KEYS, 0, ALL, 7), PIXELS)


def test_odd_views_are_exact_mirror_images() -> None:
    flip = AugmentConfig(views=2, flip=True)
    np.testing.assert_array_equal(vary(PIXELS, KEYS, 1, flip, 7), PIXELS[:, :, ::-1])


@pytest.mark.parametrize("augment", [ALL, AFRESH, STRONG])
@pytest.mark.parametrize("draw", [1, 2, 3])
def test_a_sample_is_the_same_in_any_batch_and_order(augment: AugmentConfig, draw: int) -> None:
    whole = vary(PIXELS, KEYS, draw, augment, 7)
    chosen = np.array([7, 2, 2, 11])
    np.testing.assert_array_equal(vary(PIXELS[chosen], KEYS[chosen], draw, augment, 7), whole[chosen])


@pytest.mark.parametrize("augment", [ALL, AFRESH, STRONG])
def test_draws_samples_and_seeds_differ(augment: AugmentConfig) -> None:
    same = np.repeat(PIXELS[:1], 8, axis=0)
    keys = np.arange(8, dtype=np.uint64)
    assert len({image.tobytes() for image in vary(same, keys, 1, augment, 7)}) == 8
    draws = [vary(PIXELS, KEYS, draw, augment, 7).tobytes() for draw in range(1, 4)]
    assert len(set(draws)) == 3
    assert vary(PIXELS, KEYS, 1, augment, 8).tobytes() != draws[0]


def test_a_shift_moves_pixels_and_invents_none() -> None:
    crop = AugmentConfig(views=2, crop=0.25)
    shifted = vary(PIXELS, KEYS, 1, crop, 7)
    for image, original in zip(shifted, PIXELS, strict=True):
        colours = {tuple(pixel) for pixel in original.reshape(-1, 3)}
        assert {tuple(pixel) for pixel in image.reshape(-1, 3)} <= colours


def test_colour_keeps_grey_images_grey_and_the_rest_in_place() -> None:
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8).reshape(1, 8, 8, 1), 3, axis=3)
    varied = vary(grey, KEYS[:1], 1, AugmentConfig(views=2, colour=0.5), 7)
    assert np.ptp(varied.astype(int), axis=3).max() <= 1
    assert not np.array_equal(varied, grey)


def test_half_of_the_fresh_draws_are_mirrored() -> None:
    flip = AugmentConfig(views=0, flip=True)
    pixels = np.zeros((1000, 2, 2, 3), dtype=np.uint8)
    pixels[:, :, 1] = 255
    mirrored = vary(pixels, np.arange(1000, dtype=np.uint64), 3, flip, 7)[:, 0, 0, 0] == 255
    assert 430 < mirrored.sum() < 570


SIZE = PIXELS.shape[1]
# As `vary` uses them: two for the shift, then three for colours.
SHIFT, COLOURS = slice(1, 3), slice(3, 6)


def as_images(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_a_mirrored_image_is_that_of_torchvision() -> None:
    mirrored = vary(PIXELS, KEYS, 1, AugmentConfig(views=2, flip=True), 7)
    assert torch.equal(as_images(mirrored), functional.horizontal_flip(as_images(PIXELS)))


@pytest.mark.parametrize("crop", [0.1, 0.25, 0.5])
def test_a_shifted_image_is_torchvisions_crop_of_a_reflected_border(crop: float) -> None:
    shifted = as_images(vary(PIXELS, KEYS, 1, AugmentConfig(views=2, crop=crop), 7))
    most = int(crop * SIZE)
    corners = (draw_chances(KEYS, 1, 7, 11)[:, SHIFT] * (2 * most + 1)).astype(int)
    assert len(np.unique(corners)) > 2
    for image, found, (top, left) in zip(as_images(PIXELS), shifted, corners.tolist(), strict=True):
        padded = functional.pad(image, [most], padding_mode="reflect")
        assert torch.equal(found, functional.crop(padded, top, left, SIZE, SIZE))


@pytest.mark.parametrize("most", [0.1, 0.3])
def test_changed_colours_are_torchvisions_where_it_does_not_clip_in_between(most: float) -> None:
    # Far from black and white: neither clips anything.
    middle = (100 + PIXELS // 8).astype(np.uint8)
    varied = as_images(vary(middle, KEYS, 1, AugmentConfig(views=2, colour=most), 7)).float()
    factors = 1 + most * (2 * draw_chances(KEYS, 1, 7, 11)[:, COLOURS] - 1)
    assert factors.min() < 1 - most / 2 and factors.max() > 1 + most / 2
    for image, found, (brightness, contrast, saturation) in zip(
        as_images(middle), varied, factors.tolist(), strict=True
    ):
        expected = functional.adjust_brightness(image.float() / 255, brightness)
        expected = functional.adjust_contrast(expected, contrast)
        expected = 255 * functional.adjust_saturation(expected, saturation)
        # Half a step of rounding, and what torchvision's shorter weights of luminance make.
        assert float((found - expected).abs().max()) < 0.52


def test_an_erased_image_is_torchvisions_with_the_same_rectangle_and_noise() -> None:
    erasing = AugmentConfig(views=0, erasing=1.0)
    noise, varied = (as_images(vary(pixels, KEYS, 1, erasing, 7)) for pixels in (np.zeros_like(PIXELS), PIXELS))
    for image, filled, found in zip(as_images(PIXELS), noise, varied, strict=True):
        is_noise = filled.any(dim=0).numpy()
        rows, columns = np.flatnonzero(is_noise.any(axis=1)), np.flatnonzero(is_noise.any(axis=0))
        top, left, height, width = int(rows[0]), int(columns[0]), len(rows), len(columns)
        value = filled[:, top : top + height, left : left + width]
        assert torch.equal(found, functional.erase(image, top, left, height, width, value))


def erased(pixels: NDArray[np.uint8], augment: AugmentConfig, draw: int = 1) -> NDArray[np.bool_]:
    """Tell which pixels of black images are erased: noise is black in all three channels hardly ever."""
    return vary(np.zeros_like(pixels), np.arange(len(pixels), dtype=np.uint64), draw, augment, 7).any(axis=3)


def test_erasing_fills_one_rectangle_of_a_part_of_the_images() -> None:
    blank = np.zeros((1000, 32, 32, 3), dtype=np.uint8)
    found = erased(blank, AugmentConfig(views=0, erasing=0.4))
    hit = found.any(axis=(1, 2))
    assert 340 < hit.sum() < 460
    for image in found[hit]:
        (rows,), (columns,) = np.nonzero(image.any(axis=1)), np.nonzero(image.any(axis=0))
        assert image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.01 < image.mean() < 0.43
    assert abs(found[hit].mean() - 0.21) < 0.02


def test_erased_places_hold_noise_that_differs_between_samples() -> None:
    blank = np.zeros((400, 32, 32, 3), dtype=np.uint8)
    varied = vary(blank, np.arange(400, dtype=np.uint64), 1, AugmentConfig(views=0, erasing=1.0), 7)
    values = varied[varied.any(axis=3)]
    assert abs(values.mean() - 127.5) < 1 and abs(values.std() - 73.9) < 1
    assert len({image[image.any(axis=2)][:4].tobytes() for image in varied}) == 400


def test_more_ways_to_vary_leave_the_others_as_they_are() -> None:
    blank = np.zeros((50, 16, 16, 3), dtype=np.uint8)
    erasing = AugmentConfig(views=0, erasing=0.5)
    with_more = erasing.model_copy(update={"flip": True, "crop": 0.2})
    np.testing.assert_array_equal(erased(blank, erasing), erased(blank, with_more))


def test_what_is_erased_does_not_depend_on_the_operation_that_was_drawn() -> None:
    grey = np.full((600, 16, 16, 3), 200, dtype=np.uint8)
    both = AugmentConfig(views=0, randaugment=1, magnitude=30, erasing=0.5)
    # Of all operations solarising alone makes 55 of 200.
    is_solarised = vary(grey, np.arange(600, dtype=np.uint64), 1, both, 7) == 55
    whole, mostly = is_solarised.all(axis=(1, 2, 3)).sum(), (is_solarised.mean(axis=(1, 2, 3)) > 0.5).sum()
    assert 0.2 * mostly < whole < 0.8 * mostly


def test_the_given_pixels_stay_as_they_are() -> None:
    before = PIXELS.copy()
    for augment in (ALL, STRONG):
        vary(PIXELS, KEYS, 1, augment, 7)
    np.testing.assert_array_equal(PIXELS, before)


def test_epochs_take_turns_at_fixed_views_and_draw_afresh_without() -> None:
    assert [draw_of(epoch, ALL) for epoch in range(1, 7)] == [0, 1, 2, 3, 0, 1]
    assert [draw_of(epoch, AFRESH) for epoch in range(1, 4)] == [1, 2, 3]


def test_settings_are_without_variation_unless_asked() -> None:
    assert some_settings().augment == AugmentConfig() and some_hyperparameters().epochs == 2
