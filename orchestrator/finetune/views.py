"""Varies training images: the same sample in the same draw is the same picture, whatever batch it comes in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import AugmentConfig

Pixels = NDArray[np.uint8]
Keys = NDArray[np.uint64]

# Weights of luminance, ITU-R BT.601.
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def varies(augment: AugmentConfig) -> bool:
    """Tell whether anything is varied at all."""
    return augment.flip or augment.crop > 0 or augment.colour > 0


def draw_of(epoch: int, augment: AugmentConfig) -> int:
    """Give the draw that an epoch shows: the fixed views in turn, or with `views: 0` one of its own."""
    return (epoch - 1) % augment.views if augment.views else epoch


def vary(pixels: Pixels, keys: Keys, draw: int, augment: AugmentConfig, seed: int) -> Pixels:
    """Vary pixels [n, S, S, 3] by what (seed, key, draw) says for each sample.

    With fixed views draw 0 is the image itself, and `flip` mirrors every odd draw; with `views: 0` a coin decides.
    Shifts fill the border by reflection; brightness, contrast and saturation are scaled by factors around 1. Images
    come back unchanged, not copied, when nothing varies.
    """
    if not varies(augment) or not len(pixels) or (augment.views and draw == 0):
        return pixels
    chances = _chances(keys, draw, seed)
    mirrored = chances[:, 0] < 0.5 if not augment.views else np.full(len(pixels), draw % 2 == 1)
    varied = pixels.copy()
    if augment.flip:
        varied[mirrored] = varied[mirrored, :, ::-1]
    if augment.crop > 0:
        _shift(varied, chances[:, 1:3], augment.crop)
    if augment.colour > 0:
        varied = _colour(varied, 1 + augment.colour * (2 * chances[:, 3:6] - 1))
    return varied


def _chances(keys: Keys, draw: int, seed: int) -> NDArray[np.float32]:
    """Give six numbers in [0, 1) for each sample, by the SplitMix64 generator (Steele, Lea and Flood, 2014)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        salt = _mix(np.array([seed], dtype=np.uint64)) ^ _mix(np.array([draw + 1], dtype=np.uint64) * golden)
        start = _mix(keys.astype(np.uint64) ^ salt)
        steps = start[:, None] + golden * np.arange(1, 7, dtype=np.uint64)
        return ((_mix(steps) >> np.uint64(40)) / np.float32(2**24)).astype(np.float32)


def _mix(state: Keys) -> Keys:
    with np.errstate(over="ignore"):
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


def _shift(pixels: Pixels, chances: NDArray[np.float32], crop: float) -> None:
    """Shift each image in place by up to `crop` of its size, reflecting it at the border."""
    size = pixels.shape[1]
    most = int(crop * size)
    offsets = np.minimum((chances * (2 * most + 1)).astype(np.int64), 2 * most) - most
    places = np.arange(size)
    for index, (down, right) in enumerate(offsets):
        if down or right:
            rows, columns = _reflect(places + down, size), _reflect(places + right, size)
            pixels[index] = pixels[index][rows][:, columns]


def _reflect(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    folded = np.abs(places)
    return np.where(folded >= size, 2 * (size - 1) - folded, folded)


def _colour(pixels: Pixels, factors: NDArray[np.float32]) -> Pixels:
    """Scale brightness, then contrast around the mean luminance, then saturation around each pixel's luminance."""
    brightness, contrast, saturation = (factors[:, place, None, None, None] for place in range(3))
    varied = pixels.astype(np.float32) * brightness
    middle = (varied @ _LUMINANCE).mean(axis=(1, 2))[:, None, None, None]
    varied = middle + contrast * (varied - middle)
    grey = (varied @ _LUMINANCE)[..., None]
    varied = grey + saturation * (varied - grey)
    found: Pixels = np.rint(varied).clip(0, 255).astype(np.uint8)
    return found
