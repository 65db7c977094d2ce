"""Folding changes features by no more than the rounding of float32, and leaves alone what it cannot fold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.folding import fold_batch_norms
from orchestrator.finetune.randomness import seeded


def with_statistics(backbone: Backbone) -> Backbone:
    """Give BatchNorm layers statistics that do something."""
    with seeded(1):
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return backbone.eval()


def num_norms(backbone: Backbone) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


def features(backbone: Backbone) -> Tensor:
    with torch.no_grad(), seeded(2):
        return backbone(torch.randn(3, 3, 32, 32))


@pytest.mark.parametrize(("name", "kwargs"), [("mobilenet_v2", {"width_mult": 0.25}), ("resnet18", {})])
def test_folded_backbones_give_the_same_features_without_batch_norm(name: str, kwargs: dict[str, object]) -> None:
    with seeded(0):
        backbone = with_statistics(create_backbone(name, kwargs, 32))
    expected, before = features(backbone), num_norms(backbone)
    folded = fold_batch_norms(backbone, 32)
    torch.testing.assert_close(features(folded), expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
    assert num_norms(folded) == 0 and folded.feature_dim == backbone.feature_dim
    assert num_norms(backbone) == before
    assert torch.equal(features(backbone), expected)


class Branching(nn.Module):
    """Choose by its input's values, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images) if images.sum() > 0 else -self.layers(images)


def test_what_cannot_be_traced_stays_as_it_is() -> None:
    with seeded(0):
        backbone = with_statistics(Backbone([Branching()], feature_dim=4, name="own"))
    folded = fold_batch_norms(backbone, 32)
    assert num_norms(folded) == 1
    assert torch.equal(features(folded), features(backbone))
