"""Varies training images: the same sample in the same draw is the same picture, whatever batch it comes in.

With the transforms of torchvision a picture depends on its batch, its rank and all that was drawn before, and what the
frozen stages give for it could not be kept. So mirroring, shifting, colours and erasing are written here, over whole
batches and by numbers that (seed, key, draw) give for each sample; given those, they do what its kernels do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import AugmentConfig
from orchestrator.finetune.randaugment import rand_augment

Pixels = NDArray[np.uint8]
Keys = NDArray[np.uint64]

# Weights of luminance, ITU-R BT.601.
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# What is erased: its share of the image's area, and its height over its width (Zhong et al., 2020).
_ERASED_AREA = (0.02, 0.4)
_ERASED_RATIO = (0.3, 1 / 0.3)


def draw_of(epoch: int, augment: AugmentConfig) -> int:
    """Give the draw that an epoch shows: the fixed views in turn, or with `views: 0` one of its own."""
    return (epoch - 1) % augment.views if augment.views else epoch


def vary(pixels: Pixels, keys: Keys, draw: int, augment: AugmentConfig, seed: int) -> Pixels:
    """Vary pixels [n, S, S, 3] by what (seed, key, draw) says for each sample.

    With fixed views draw 0 is the image itself, and `flip` mirrors every odd draw; with `views: 0` a coin decides.
    Shifts fill the border by reflection; brightness, contrast and saturation are scaled by factors around 1; then
    come RandAugment's operations, then a rectangle of noise. Images come back unchanged, not copied, when nothing
    varies.
    """
    if not augment.varies or not len(pixels) or (augment.views and draw == 0):
        return pixels
    starts = _starts(keys, draw, seed)
    chances = _chances(starts, 11 + 2 * augment.randaugment)
    mirrored = chances[:, 0] < 0.5 if not augment.views else np.full(len(pixels), draw % 2 == 1)
    varied = pixels.copy()
    if augment.flip:
        varied[mirrored] = varied[mirrored, :, ::-1]
    if augment.crop > 0:
        _shift(varied, chances[:, 1:3], augment.crop)
    if augment.colour > 0:
        varied = _colour(varied, 1 + augment.colour * (2 * chances[:, 3:6] - 1))
    if augment.randaugment:
        varied = rand_augment(varied, chances[:, 11:].reshape(len(varied), -1, 2), augment.magnitude)
    if augment.erasing > 0:
        _erase(varied, chances[:, 6:11], augment.erasing, starts)
    return varied


def draw_chances(keys: Keys, draw: int, seed: int, count: int) -> NDArray[np.float32]:
    """Draw numbers [n, count] in [0, 1) for samples, by what (seed, key, draw) says for each of them."""
    return _chances(_starts(keys, draw, seed), count)


def _starts(keys: Keys, draw: int, seed: int) -> Keys:
    """Give a state of the SplitMix64 generator (Steele, Lea and Flood, 2014) for each sample."""
    with np.errstate(over="ignore"):
        salt = _mix(np.array([seed], dtype=np.uint64)) ^ _mix(np.array([draw + 1], dtype=np.uint64) * _GOLDEN)
    return _mix(keys.astype(np.uint64) ^ salt)


def _words(starts: Keys, count: int) -> Keys:
    """Give the first words [n, count] that generators in these states draw."""
    with np.errstate(over="ignore"):
        return _mix(starts[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def _chances(starts: Keys, count: int) -> NDArray[np.float32]:
    """Give numbers [n, count] in [0, 1)."""
    return ((_words(starts, count) >> np.uint64(40)) / np.float32(2**24)).astype(np.float32)


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
    """Scale brightness, then contrast around the mean luminance, then saturation around each pixel's luminance.

    Values are clipped once, at the end: torchvision clips after each of the three.
    """
    brightness, contrast, saturation = (factors[:, place, None, None, None] for place in range(3))
    varied = pixels.astype(np.float32) * brightness
    middle = (varied @ _LUMINANCE).mean(axis=(1, 2))[:, None, None, None]
    varied = middle + contrast * (varied - middle)
    grey = (varied @ _LUMINANCE)[..., None]
    varied = grey + saturation * (varied - grey)
    found: Pixels = np.rint(varied).clip(0, 255).astype(np.uint8)
    return found


def _erase(pixels: Pixels, chances: NDArray[np.float32], probability: float, starts: Keys) -> None:
    """Fill a rectangle of some images in place with noise.

    Area and place are uniform, the ratio of its sides uniform in its logarithm, among those that fit into the image.
    """
    size = pixels.shape[1]
    low, high = _ERASED_AREA
    area = low + (high - low) * chances[:, 1]
    narrow, wide = np.log(np.maximum(_ERASED_RATIO[0], area)), np.log(np.minimum(_ERASED_RATIO[1], 1 / area))
    ratio = np.exp(narrow + (wide - narrow) * chances[:, 2])
    sides = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1)
    sides = np.rint(size * sides).astype(np.int64).clip(1, size)
    corners = np.minimum((chances[:, 3:5] * (size - sides + 1)).astype(np.int64), size - sides)
    # Noise must not repeat the numbers that chose the rectangle.
    states = ~starts
    for index in np.flatnonzero(chances[:, 0] < probability):
        (top, left), (height, width) = corners[index], sides[index]
        noise = _noise(states[index : index + 1], height * width * 3).reshape(height, width, 3)
        pixels[index, top : top + height, left : left + width] = noise


def _noise(state: Keys, count: int) -> NDArray[np.uint8]:
    words = _words(state, -(-count // 8))
    return words.astype("<u8").view(np.uint8).ravel()[:count]
