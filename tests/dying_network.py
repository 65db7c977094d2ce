"""A network that notes the images of every training step, and kills its process at some of them, as a lost node does.

Workers of Ray find it from the directory that the tests are run in.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.finetune.backbones import Backbone
from orchestrator.records import BackboneSpec

IMAGE_PX = 16
# Ray Train's controller asks its workers every half second what they have reported: what it has not heard of is lost.
HEARD_AFTER_S = 5.0


class Notes(nn.Module):
    """Pass images on; a training step adds a line with their numbers to a file, and may be the last of its process."""

    def __init__(self, path: str, deaths: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._deaths = [int(step) for step in deaths.split()]

    def forward(self, images: Tensor) -> Tensor:
        # Validation and what frozen stages give are computed without gradients.
        if torch.is_grad_enabled():
            with self._path.open("a") as file:
                file.write(json.dumps((images[:, 0, 0, 0] * 255).round().int().tolist()) + "\n")
            if len(read_notes(self._path)) in self._deaths:
                time.sleep(HEARD_AFTER_S)
                os.kill(os.getpid(), signal.SIGKILL)
        return images


def dying_backbone(path: str, deaths: str = "") -> Backbone:
    """Make a network of two stages that dies at the steps `deaths`, counted over all of its lives from 1."""
    stages = [
        nn.Sequential(
            Notes(path, deaths),
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(0.2),
        ),
        nn.Sequential(
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
        ),
    ]
    return Backbone(stages, feature_dim=16, name="dying")


def dying_spec(path: Path, *deaths: int) -> BackboneSpec:
    """Describe the network with images that it knows by number: pixels are only scaled."""
    return BackboneSpec(
        name="tests.dying_network:dying_backbone",
        kwargs={"path": str(path), "deaths": " ".join(map(str, deaths))},
        image_size=IMAGE_PX,
        resize="crop",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def numbered(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Write the place of each of at most 256 images into its first value."""
    found = pixels.copy()
    found[:, 0, 0, 0] = np.arange(len(pixels))
    return found


def read_notes(path: Path) -> list[list[int]]:
    """Give the numbers of the images of every training step that has begun, in their order."""
    return [json.loads(line) for line in path.read_text().splitlines()]
