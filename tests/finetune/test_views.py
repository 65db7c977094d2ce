"""A sample's variants are its own: the same in every batch, different in every draw."""

from __future__ import annotations

import numpy as np
import pytest
from finetune_examples import some_hyperparameters, some_samples, some_settings

from orchestrator.config import AugmentConfig
from orchestrator.finetune.views import draw_of, vary

PIXELS = some_samples(12).pixels
KEYS = np.arange(100, 112, dtype=np.uint64)
ALL = AugmentConfig(views=4, flip=True, crop=0.2, colour=0.3)
AFRESH = ALL.model_copy(update={"views": 0})


def test_the_first_fixed_view_is_the_image_itself() -> None:
    np.testing.assert_array_equal(vary(PIXELS, KEYS, 0, ALL, 7), PIXELS)


def test_odd_views_are_exact_mirror_images() -> None:
    flip = AugmentConfig(views=2, flip=True)
    np.testing.assert_array_equal(vary(PIXELS, KEYS, 1, flip, 7), PIXELS[:, :, ::-1])


@pytest.mark.parametrize("augment", [ALL, AFRESH])
@pytest.mark.parametrize("draw", [1, 2, 3])
def test_a_sample_is_the_same_in_any_batch_and_order(augment: AugmentConfig, draw: int) -> None:
    whole = vary(PIXELS, KEYS, draw, augment, 7)
    chosen = np.array([7, 2, 2, 11])
    np.testing.assert_array_equal(vary(PIXELS[chosen], KEYS[chosen], draw, augment, 7), whole[chosen])


@pytest.mark.parametrize("augment", [ALL, AFRESH])
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


def test_the_given_pixels_stay_as_they_are() -> None:
    before = PIXELS.copy()
    vary(PIXELS, KEYS, 1, ALL, 7)
    np.testing.assert_array_equal(PIXELS, before)


def test_epochs_take_turns_at_fixed_views_and_draw_afresh_without() -> None:
    assert [draw_of(epoch, ALL) for epoch in range(1, 7)] == [0, 1, 2, 3, 0, 1]
    assert [draw_of(epoch, AFRESH) for epoch in range(1, 4)] == [1, 2, 3]


def test_settings_are_without_variation_unless_asked() -> None:
    assert some_settings().augment == AugmentConfig() and some_hyperparameters().epochs == 2
