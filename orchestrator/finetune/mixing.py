"""Mixes the images of a batch, and their targets alike: mixup and CutMix.

Torchvision's transforms of these names draw from torch's own generator: ranks would mix by different shares, and a
resumed training by others than before. Here all is drawn by (seed, epoch, step); given that, images and targets are
mixed as there. Partners are those of a permutation, not neighbours: in balanced batches classes take turns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from orchestrator.config import MixingName

# Keeps these draws apart from those of the sampling order, which are seeded by (seed, epoch) too.
_STREAM = 0x6D6978


def mixing_generator(seed: int, epoch: int, step: int) -> np.random.Generator:
    """Give the generator of one global batch: the same on every rank. Each value is at least 0."""
    return np.random.default_rng([_STREAM, seed, epoch, step])


def mix(
    images: Tensor, targets: Tensor, kind: MixingName, alpha: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix images [n, C, H, W] and targets [n, K], which are probabilities, with those of a permutation of the batch.

    A share lambda from Beta(alpha, alpha), `alpha` above 0, is drawn once for the batch. `mixup` gives lambda x +
    (1 - lambda) x', and targets alike (Zhang et al., 2018). `cutmix` pastes a box of x' with a share of 1 - lambda of
    the area, and clipped at the border; targets are mixed by the share that is left (Yun et al., 2019).

    What belongs to the whole global batch, lambda and the box, is drawn before the permutation: ranks whose generators
    are in the same state mix their parts by the same lambda, and each pairs samples within its own part. A single
    sample is paired with itself and stays what it is.
    """
    kept = float(generator.beta(alpha, alpha))
    box = _box(images.shape[-2:], kept, generator) if kind == "cutmix" else None
    partners = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    if box is None:
        mixed = images.lerp(images[partners], 1 - kept)
    else:
        rows, columns = box
        mixed = images.clone()
        mixed[..., rows, columns] = images[partners][..., rows, columns]
        height, width = images.shape[-2:]
        kept = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return mixed, targets.lerp(targets[partners], 1 - kept)


def _box(size: torch.Size, kept: float, generator: np.random.Generator) -> tuple[slice, slice]:
    """Draw a box around a uniform centre, whose sides are sqrt(1 - kept) of the image's before it is clipped."""
    sides = []
    for length in size:
        centre = int(generator.integers(length))
        half = int(length * np.sqrt(1 - kept)) // 2
        sides.append(slice(max(0, centre - half), min(length, centre + half)))
    return sides[0], sides[1]
