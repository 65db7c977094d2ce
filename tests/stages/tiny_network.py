"""A network that learns in seconds; workers of Ray find it from the directory that the tests are run in."""

from torch import nn

from orchestrator.finetune.backbones import Backbone


def tiny_backbone() -> Backbone:
    """Make a network of two stages, as a user would bring it."""
    stages = [
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
        ),
    ]
    return Backbone(stages, feature_dim=16, name="tiny")
