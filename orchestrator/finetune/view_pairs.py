"""Makes two random views of every image for SimSiam: the same two whenever the same sample comes in the same epoch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from orchestrator.config import SimSiamConfig
from orchestrator.finetune.views import Keys, Pixels, draw_chances

# A crop's height over its width, the probability of changed colours, and the share of the hue's circle that they turn
# by for each share of the others' change (Chen and He, 2021, after Wu et al., 2018).
_CROP_RATIO = (3 / 4, 4 / 3)
_COLOURED = 0.8
_TURN = 0.25

# The standard deviations of blurs over the image's size: 0.1 to 2 pixels of 224 (Chen et al., "A Simple Framework for
# Contrastive Learning of Visual Representations", 2020).
_BLUR = (0.1 / 224, 2 / 224)
_REACH = 3

# From RGB to luminance and two axes of colour, YIQ of NTSC, and back; a turn of these two axes is one of the hue.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_RGB = ((1.0, 0.95605, 0.62075), (1.0, -0.27205, -0.64721), (1.0, -1.1067, 1.70442))

_NUM_CHANCES = 13


def view_pair(
    pixels: Pixels, keys: Keys, epoch: int, config: SimSiamConfig, seed: int, *, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Give two views of pixels [n, S, S, 3] by what (seed, key, epoch) says for each sample, uint8 like them.

    They are made on the device: what is drawn is the same on all, but not how pixels are rounded.
    """
    raw = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    images = raw.to(device).permute(0, 3, 1, 2).float().contiguous()
    one, other = (
        _view(images, torch.from_numpy(draw_chances(keys, draw, seed, _NUM_CHANCES)).to(device), config)
        for draw in (2 * epoch, 2 * epoch + 1)
    )
    return one, other


def _view(images: Tensor, drawn: Tensor, config: SimSiamConfig) -> Tensor:
    """Vary images [n, 3, S, S] of 0 to 255 as numbers [n, 13] in [0, 1) say; no sample has a part in another's view."""
    varied = _crop(images, drawn[:, :4], config.smallest_crop)
    if config.flip:
        varied = torch.where(_per_image(drawn[:, 4] < 0.5), varied.flip(3), varied)
    if config.colour > 0:
        varied = torch.where(
            _per_image(drawn[:, 5] < _COLOURED), _colour(varied, drawn[:, 6:10], config.colour), varied
        )
    if config.grey > 0:
        varied = torch.where(_per_image(drawn[:, 10] < config.grey), _luminance(varied).expand_as(varied), varied)
    if config.blur > 0:
        varied = torch.where(_per_image(drawn[:, 11] < config.blur), _blur(varied, drawn[:, 12]), varied)
    return varied.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _crop(images: Tensor, chances: Tensor, smallest: float) -> Tensor:
    """Enlarge a part of each image to its size, bilinearly.

    The part's share of the area and its place are uniform, the ratio of its sides is uniform in its logarithm, among
    those that fit into the image.
    """
    size = images.shape[-1]
    area = smallest + (1 - smallest) * chances[:, 0]
    narrow, wide = (
        torch.log(bound) for bound in (area.clamp(min=_CROP_RATIO[0]), (1 / area).clamp(max=_CROP_RATIO[1]))
    )
    ratio = torch.exp(narrow + (wide - narrow) * chances[:, 1])
    height, width = torch.sqrt(area * ratio).clamp(max=1), torch.sqrt(area / ratio).clamp(max=1)
    # The image spans -1 to 1; its pixels' centres lie half a pixel inside.
    centres = (2 * torch.arange(size, device=images.device) + 1) / size - 1
    rows = (1 - height) * (2 * chances[:, 2] - 1)
    columns = (1 - width) * (2 * chances[:, 3] - 1)
    down = rows[:, None] + height[:, None] * centres
    right = columns[:, None] + width[:, None] * centres
    shape = (len(images), size, size)
    grid = torch.stack([right[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=3)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _colour(images: Tensor, chances: Tensor, strength: float) -> Tensor:
    """Scale brightness, contrast around the mean luminance, and saturation, by factors around 1; then turn the hue."""
    brightness, contrast, saturation = (_per_image(1 + strength * (2 * chances[:, place] - 1)) for place in range(3))
    varied = images * brightness
    middle = _luminance(varied).double().mean(dim=(1, 2, 3), keepdim=True).float()
    varied = middle + contrast * (varied - middle)
    grey = _luminance(varied)
    varied = grey + saturation * (varied - grey)
    angle = 2 * math.pi * _TURN * strength * (2 * chances[:, 3] - 1)
    return _turn_hue(varied.clamp(0, 255), _per_image(angle.cos()), _per_image(angle.sin()))


def _turn_hue(images: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    luminance, first, second = (_mixed(images, _YIQ[row]) for row in range(3))
    turned = torch.cat([luminance, cosine * first - sine * second, sine * first + cosine * second], dim=1)
    return torch.cat([_mixed(turned, _RGB[row]) for row in range(3)], dim=1)


def _luminance(images: Tensor) -> Tensor:
    return _mixed(images, _YIQ[0])


def _mixed(images: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Add up channels: [n, 1, S, S]. A matrix product would round by the number of images."""
    red, green, blue = (images[:, channel : channel + 1] * weights[channel] for channel in range(3))
    return red + green + blue


def _blur(images: Tensor, chances: Tensor) -> Tensor:
    """Blur each image by a Gaussian of a standard deviation of its own."""
    size = images.shape[-1]
    low, high = (share * size for share in _BLUR)
    deviations = low + (high - low) * chances
    reach = max(1, math.ceil(_REACH * high))
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-((offsets / deviations[:, None]) ** 2) / 2)
    weights = weights / weights.sum(dim=1, keepdim=True)
    blurred = images
    for dim in (2, 3):
        padding = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
        padded = pad(blurred, padding, mode="replicate")
        blurred = torch.zeros_like(images)
        for place in range(len(offsets)):
            blurred += _per_image(weights[:, place]) * padded.narrow(dim, place, size)
    return blurred
