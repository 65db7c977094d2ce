"""The two views of a sample are its own, in any batch, and each key of the experiment file does what it says."""

from __future__ import annotations

import numpy as np
import pytest
from finetune_examples import some_samples
from numpy.typing import NDArray

from orchestrator.config import SimSiamConfig
from orchestrator.finetune import view_pairs

PIXELS = some_samples(12, image_size=24).pixels
KEYS = np.arange(100, 112, dtype=np.uint64)
Pixels = NDArray[np.uint8]
STILL = SimSiamConfig(smallest_crop=1.0, flip=False, colour=0.0, grey=0.0, blur=0.0)


def view_pair(pixels: Pixels, keys: NDArray[np.uint64], epoch: int, config: SimSiamConfig, seed: int) -> list[Pixels]:
    return [view.numpy() for view in view_pairs.view_pair(pixels, keys, epoch, config, seed)]


def test_a_sample_has_the_same_views_in_any_batch_and_order() -> None:
    whole = view_pair(PIXELS, KEYS, 3, SimSiamConfig(), 7)
    for chosen in ([7, 2, 2, 11], [5]):
        part = view_pair(PIXELS[chosen], KEYS[chosen], 3, SimSiamConfig(), 7)
        for one, other in zip(part, whole, strict=True):
            np.testing.assert_array_equal(one, other[chosen])


def test_views_of_samples_epochs_and_seeds_differ() -> None:
    same = np.repeat(PIXELS[:1], 8, axis=0)
    found = [
        view
        for epoch, seed in ((1, 7), (2, 7), (1, 8))
        for view in view_pair(same, KEYS[:8], epoch, SimSiamConfig(), seed)
    ]
    assert len({image.tobytes() for view in found for image in view}) == 6 * 8


def test_views_are_images_of_the_same_shape_and_the_original_stays() -> None:
    before = PIXELS.copy()
    for view in view_pair(PIXELS, KEYS, 1, SimSiamConfig(), 0):
        assert view.shape == PIXELS.shape and view.dtype == np.uint8
        assert not np.array_equal(view, PIXELS)
    np.testing.assert_array_equal(PIXELS, before)


def test_where_nothing_varies_views_are_the_image_itself() -> None:
    for view in view_pair(PIXELS, KEYS, 1, STILL, 0):
        np.testing.assert_array_equal(view, PIXELS)


def test_half_of_the_views_are_mirror_images() -> None:
    pixels, keys = np.repeat(PIXELS[:1], 400, axis=0), np.arange(400, dtype=np.uint64)
    view, _ = view_pair(pixels, keys, 1, STILL.model_copy(update={"flip": True}), 0)
    mirrored = [np.array_equal(image, PIXELS[0, :, ::-1]) for image in view]
    assert all(is_mirror or np.array_equal(image, PIXELS[0]) for image, is_mirror in zip(view, mirrored, strict=True))
    assert 150 < sum(mirrored) < 250


def test_a_crop_shows_at_least_the_smallest_part_and_at_most_the_whole() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 64)[None, :, None], (64, 64, 3)).astype(np.uint8)
    pixels, keys = np.repeat(ramp[None], 300, axis=0), np.arange(300, dtype=np.uint64)
    view, _ = view_pair(pixels, keys, 1, STILL.model_copy(update={"smallest_crop": 0.25}), 0)
    shown = (view[:, 0, -1, 0].astype(float) - view[:, 0, 0, 0]) / 255
    # A quarter of the area at the narrowest ratio is sqrt(0.25 / (4 / 3)) wide; half a pixel at each end is not shown.
    assert shown.min() > 0.43 - 2 / 64 and shown.max() <= 1.0
    assert shown.std() > 0.1
    lefts = view[:, 0, 0, 0]
    assert lefts.min() < 5 and lefts.max() > 60


@pytest.mark.parametrize("key", ["grey", "blur"])
def test_a_probability_is_that_of_its_change(key: str) -> None:
    # Of smaller images a blur leaves the pixels as they are.
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    pixels, keys = np.repeat(noise, 200, axis=0), np.arange(200, dtype=np.uint64)
    view, _ = view_pair(pixels, keys, 1, STILL.model_copy(update={key: 0.3}), 0)
    assert 40 < sum(not np.array_equal(image, noise[0]) for image in view) < 80


def test_grey_views_keep_the_luminance() -> None:
    view, _ = view_pair(PIXELS, KEYS, 1, STILL.model_copy(update={"grey": 1.0}), 0)
    np.testing.assert_array_equal(view[..., 0], view[..., 2])
    expected = PIXELS @ np.array([0.299, 0.587, 0.114])
    assert np.abs(view[..., 1] - expected).max() <= 1


def test_a_blur_evens_out_neighbours_and_keeps_the_mean() -> None:
    noise = np.random.default_rng(0).integers(64, 192, (4, 112, 112, 3), dtype=np.uint8)
    view, _ = view_pair(noise, KEYS[:4], 1, STILL.model_copy(update={"blur": 1.0}), 0)
    for image, original in zip(view.astype(float), noise.astype(float), strict=True):
        assert abs(image.mean() - original.mean()) < 0.5
    assert view.std() < 0.9 * noise.std()


def test_colours_change_their_hue_but_greys_stay_grey() -> None:
    coloured = STILL.model_copy(update={"colour": 0.4})
    grey = np.full((8, 16, 16, 3), 120, dtype=np.uint8)
    for view in view_pair(grey, KEYS[:8], 1, coloured, 0):
        assert np.abs(view.astype(int) - view.astype(int).mean(axis=3, keepdims=True)).max() <= 1
    red = np.broadcast_to(np.array([180, 60, 60], dtype=np.uint8), (64, 8, 8, 3))
    view, _ = view_pair(red, np.arange(64, dtype=np.uint64), 1, coloured, 0)
    green, blue = view[:, 0, 0, 1].astype(int), view[:, 0, 0, 2].astype(int)
    assert (green - blue).max() > 10 and (green - blue).min() < -10
    assert (view[:, 0, 0, 0] > view[:, 0, 0, 1]).all()
