"""SimSiam: a backbone that makes two views of an image predict each other, without labels and without negatives."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from orchestrator.config import SimSiamConfig
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.distributed import sum_over_ranks
from orchestrator.finetune.randomness import seeded

_MOST_WIDTH = 2048
_NARROWED = 4


class SimSiam(nn.Module):
    """Hold a backbone with SimSiam's projector and predictor.

    Chen and He, "Exploring Simple Siamese Representation Learning", 2021, section 3: the projector has three linear
    layers, the predictor two with a narrow one between; BatchNorm and ReLU follow each, but that the projector ends
    with BatchNorm and the predictor with its linear layer. Theirs are 2,048 wide, as are the features of ResNet-50;
    here they are as wide as the backbone's features, at most 2,048, or `width`.
    """

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = nn.Sequential(
            *_layer(backbone.feature_dim, width), nn.ReLU(), *_layer(width, width), nn.ReLU(), *_layer(width, width)
        )
        self.predictor = nn.Sequential(
            *_layer(width, width // _NARROWED), nn.ReLU(), nn.Linear(width // _NARROWED, width)
        )

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Turn two views [n, 3, S, S] into losses [n], in [-1, 1], and the outputs [n, width] of the first.

        Each view passes by itself, so that BatchNorm takes its statistics from one view of every image.
        """
        outputs = [self.projector(self.backbone(images)).float() for images in (one, other)]
        predictions = [self.predictor(found).float() for found in outputs]
        losses = negative_cosine(predictions[0], self.target(outputs[1]))
        losses = losses + negative_cosine(predictions[1], self.target(outputs[0]))
        return losses / 2, outputs[0].detach()

    def target(self, outputs: Tensor) -> Tensor:
        """Give what is to be predicted: the outputs, from which no gradient goes back. Without that all collapse."""
        return outputs.detach()


def new_simsiam(backbone: Backbone, config: SimSiamConfig, *, seed: int) -> SimSiam:
    """Put a projector and a predictor, randomly initialised from the seed, on a copy of a backbone."""
    with seeded(seed):
        return SimSiam(copy.deepcopy(backbone), config.width or min(_MOST_WIDTH, backbone.feature_dim))


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Give the negative cosines [n] of the angles between rows [n, d] (Chen and He, 2021, equation 1)."""
    return -cosine_similarity(predictions, targets, dim=1)


def spread(outputs: Tensor) -> float:
    """Give the standard deviation of unit outputs [n, d] times the root of d, over all ranks, the mean over d.

    A rank may have none. Near 1 when they point everywhere, 0 when all are the same (Chen and He, 2021, section 4.1).
    """
    units = normalize(outputs.double(), dim=1)
    sums = torch.stack([units.sum(dim=0), (units**2).sum(dim=0), units.new_full(units.shape[1:], len(units))])
    total, squares, count = sum_over_ranks(sums)
    deviations = (squares / count - (total / count) ** 2).clamp(min=0).sqrt()
    return float(deviations.mean()) * math.sqrt(outputs.shape[1])


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    # What a bias adds BatchNorm takes away again.
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)
