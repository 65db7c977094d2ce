"""Applies RandAugment's operations to images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

_MAX_MAGNITUDE = 30


def rand_augment(pixels: NDArray[np.uint8], chances: NDArray[np.float32], magnitude: int) -> NDArray[np.uint8]:
    """Vary pixels [n, S, S, 3] by the operations that chances [n, operations, 2] in [0, 1) choose, one after another.

    Each choice is of one of 14 operations, then of its direction where it has two; `magnitude` in 0..30 is that of all
    (Cubuk et al., 2020, as torchvision's RandAugment sets it: nearest pixels, black where there were none). An image
    comes out the same in any batch.
    """
    chosen = (chances[..., 0].astype(np.float64) * len(_OPERATIONS)).astype(np.int64)
    levels = np.where(chances[..., 1] < 0.5, -1, 1) * magnitude / _MAX_MAGNITUDE
    varied = np.empty_like(pixels)
    # One image at a time stays in the processor's cache: faster than all images of an operation together.
    for index, (operations, signed_levels) in enumerate(zip(chosen, levels, strict=True)):
        image = torch.from_numpy(pixels[index]).permute(2, 0, 1).contiguous()
        for place, level in zip(operations.tolist(), signed_levels.tolist(), strict=True):
            operation, has_directions = _OPERATIONS[place]
            image = operation(image, level if has_directions else abs(level))
        varied[index] = image.permute(1, 2, 0).numpy()
    return varied


def _affine(image: Tensor, **changes: Any) -> Tensor:
    still: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    moved: Tensor = functional.affine(image, **{**still, **changes})
    return moved


def _slant(level: float) -> float:
    """Give the angle, in degrees, that shears by 0.3 pixels a pixel at level 1."""
    return math.degrees(math.atan(0.3 * level))


def _distance(image: Tensor, level: float) -> int:
    return int(150 / 331 * image.shape[-1] * level)


# What is done to an image [3, S, S] uint8 at a level, in [-1, 1] where there are two directions, else in [0, 1].
_OPERATIONS: tuple[tuple[Callable[[Tensor, float], Tensor], bool], ...] = (
    (lambda image, level: image, False),
    (lambda image, level: _affine(image, shear=[_slant(level), 0.0], center=[0.0, 0.0]), True),
    (lambda image, level: _affine(image, shear=[0.0, _slant(level)], center=[0.0, 0.0]), True),
    (lambda image, level: _affine(image, translate=[_distance(image, level), 0]), True),
    (lambda image, level: _affine(image, translate=[0, _distance(image, level)]), True),
    (lambda image, level: functional.rotate(image, angle=30 * level), True),
    (lambda image, level: functional.adjust_brightness(image, 1 + 0.9 * level), True),
    (lambda image, level: functional.adjust_saturation(image, 1 + 0.9 * level), True),
    (lambda image, level: functional.adjust_contrast(image, 1 + 0.9 * level), True),
    (lambda image, level: functional.adjust_sharpness(image, 1 + 0.9 * level), True),
    (lambda image, level: functional.posterize(image, bits=8 - round(4 * level)), False),
    (lambda image, level: functional.solarize(image, threshold=255 * (1 - level)), False),
    (lambda image, level: functional.autocontrast(image), False),
    (lambda image, level: functional.equalize(image), False),
)
