"""A backbone with a classification head, and what can be asked of it: probabilities and features."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.randomness import seeded
from orchestrator.records import BackboneSpec

EVALUATION_BATCH = 64


class Classifier(nn.Module):
    """Classify images [n, 3, S, S] into logits [n, K].

    Of several tasks the head gives the logits side by side, `class_counts` of each; by default there is one task.
    With `multi_label` an image may have any number of the classes, each with a probability of its own.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Linear,
        class_counts: Sequence[int] | None = None,
        *,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        self.multi_label = multi_label
        self.backbone = backbone
        self.head = head
        self.class_counts = (head.out_features,) if class_counts is None else tuple(class_counts)

    def forward(self, images: Tensor) -> Tensor:
        """Turn normalised images [n, 3, S, S] into logits [n, K]."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits [n, K] into probabilities [n, K], which sum to 1 over the classes of each task.

        Those of labels of which an image may have any number are sigmoids.
        """
        if self.multi_label:
            return logits.sigmoid()
        if len(self.class_counts) == 1:
            return logits.softmax(dim=1)
        return torch.cat([part.softmax(dim=1) for part in torch.split(logits, list(self.class_counts), dim=1)], dim=1)

    def prefix(self, depth: int) -> nn.Sequential:
        """Give the first `depth` stages, sharing their tensors."""
        return nn.Sequential(*self.backbone.stages[:depth])

    def suffix(self, depth: int) -> nn.Sequential:
        """Give the stages from `depth` on and the head, sharing their tensors."""
        return nn.Sequential(*self.backbone.stages[depth:], self.head)


def new_classifier(backbone: Backbone, num_classes: int | Sequence[int], *, seed: int) -> Classifier:
    """Put a head, randomly initialised from the seed, on a copy of a backbone; for several tasks one for each."""
    class_counts = (num_classes,) if isinstance(num_classes, int) else tuple(num_classes)
    with seeded(seed):
        head = nn.Linear(backbone.feature_dim, sum(class_counts))
    return Classifier(copy.deepcopy(backbone), head, class_counts)


def preprocess(pixels: NDArray[np.uint8] | Tensor, spec: BackboneSpec, device: str) -> Tensor:
    """Turn uint8 pixels [n, S, S, 3] into normalised float32 images [n, 3, S, S] on a device.

    In memory they stay channels last, which convolutions are fastest on.
    """
    raw = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    scaled = raw.to(device).float() / 255
    mean = torch.tensor(spec.mean, device=device)
    std = torch.tensor(spec.std, device=device)
    return ((scaled - mean) / std).permute(0, 3, 1, 2)


def predict_probabilities(
    classifier: Classifier,
    spec: BackboneSpec,
    pixels: NDArray[np.uint8],
    *,
    device: str,
    batch_size: int = EVALUATION_BATCH,
) -> NDArray[np.float32]:
    """Give the class probabilities float32 [n, K] of pixels [n, S, S, 3]; puts the classifier into eval mode."""
    batches = _outputs(classifier, spec, pixels, device=device, batch_size=batch_size)
    found = [classifier.probabilities(logits).cpu().numpy() for logits in batches]
    return np.concatenate([np.zeros((0, classifier.head.out_features), dtype=np.float32), *found])


def predict_with_features(
    classifier: Classifier, spec: BackboneSpec, pixels: NDArray[np.uint8], *, device: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the class probabilities float32 [n, K] and the features float32 [n, d] of pixels [n, S, S, 3] in one go.

    Puts the classifier into eval mode.
    """
    classifier.to(device).eval()
    probabilities = [np.zeros((0, classifier.head.out_features), dtype=np.float32)]
    features = [np.zeros((0, classifier.backbone.feature_dim), dtype=np.float32)]
    for found in _outputs(classifier.backbone, spec, pixels, device=device, batch_size=EVALUATION_BATCH):
        with torch.no_grad():
            probabilities.append(classifier.probabilities(classifier.head(found)).cpu().numpy())
        features.append(found.cpu().numpy())
    return np.concatenate(probabilities), np.concatenate(features)


def extract_features(
    backbone: Backbone,
    spec: BackboneSpec,
    pixels: NDArray[np.uint8],
    *,
    device: str,
    batch_size: int = EVALUATION_BATCH,
) -> NDArray[np.float32]:
    """Give the feature vectors float32 [n, d] of pixels [n, S, S, 3]; puts the backbone into eval mode."""
    batches = _outputs(backbone, spec, pixels, device=device, batch_size=batch_size)
    found = [features.cpu().numpy() for features in batches]
    return np.concatenate([np.zeros((0, backbone.feature_dim), dtype=np.float32), *found])


def _outputs(
    module: nn.Module, spec: BackboneSpec, pixels: NDArray[np.uint8], *, device: str, batch_size: int
) -> Iterator[Tensor]:
    module.to(device).eval()
    for start in range(0, len(pixels), batch_size):
        with torch.no_grad():
            yield module(preprocess(pixels[start : start + batch_size], spec, device)).float()
