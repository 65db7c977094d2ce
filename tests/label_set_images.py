"""Made-up images of any number of labels: a red disc, a blue bar and a green frame, each there or not."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from builders import encode_image
from numpy.typing import NDArray

SHAPES = ("bar", "disc", "frame")


def label_set_image(labels: Sequence[str], rng: np.random.Generator, image_px: int) -> NDArray[np.uint8]:
    """Draw the shapes that are named on a grey ground with noise: [px, px, 3]."""
    y, x = np.mgrid[0:image_px, 0:image_px] / image_px - 0.5
    dx, dy = rng.uniform(-0.1, 0.1, size=2)
    pixels = rng.normal(110, 15, size=(image_px, image_px, 3))
    if "frame" in labels:
        pixels[np.maximum(abs(x), abs(y)) > 0.36] = (30, 210, 40)
    if "bar" in labels:
        pixels[(abs(y - dy) < 0.1) & (abs(x) < 0.35)] = (30, 50, 220)
    if "disc" in labels:
        pixels[(x - dx) ** 2 + (y - dy) ** 2 < 0.04] = (220, 40, 40)
    found: NDArray[np.uint8] = pixels.clip(0, 255).astype(np.uint8)
    return found


def label_set_rows(
    subsets: Mapping[str, int], *, shares: Mapping[str, float], image_px: int = 32, seed: int = 0
) -> list[dict[str, object]]:
    """Make the rows image (PNG bytes), labels (a list), subset and id; `shares` are those of images with a label."""
    rows: list[dict[str, object]] = []
    for subset, count in subsets.items():
        for number in range(count):
            identity = f"{subset}/{number}"
            rng = np.random.default_rng([seed, zlib.crc32(identity.encode())])
            labels = [label for label in SHAPES if rng.uniform() < shares.get(label, 0.0)]
            image = encode_image(label_set_image(labels, rng, image_px))
            rows.append({"image": image, "labels": labels[::-1], "subset": subset, "id": identity})
    return rows
