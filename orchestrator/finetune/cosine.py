"""A head that goes by the direction of features alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.config import HeadName
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.randomness import seeded

_FIRST_SCALE = 10.0


class CosineHead(nn.Linear):
    """Give the logits s cos(f, w_k) [n, K] of features f [n, d], with rows w_k [K, d] and a learnt scale s []; no bias.

    Neither the length of a feature nor that of a row counts, so that classes of few samples are not drowned by rows
    that have grown (Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", 2018). Features of
    length 0 have the logits 0. A subclass of `nn.Linear`, because `weight` and the sizes mean the same.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = nn.Parameter(torch.tensor(_FIRST_SCALE))

    def forward(self, features: Tensor) -> Tensor:
        """Turn features [n, d] into logits [n, K]."""
        return self.scale * functional.linear(functional.normalize(features), functional.normalize(self.weight))


def new_head(name: HeadName, feature_dim: int, num_classes: int) -> nn.Linear:
    """Create a head with random weights; that of prototypes is a plain linear layer once it is fitted."""
    return CosineHead(feature_dim, num_classes) if name == "cosine" else nn.Linear(feature_dim, num_classes)


def first_outputs(head: nn.Linear, num_classes: int) -> nn.Linear:
    """Give a head of the same kind with the first outputs of one alone, its weights copied."""
    kind: HeadName = "cosine" if isinstance(head, CosineHead) else "linear"
    narrowed = new_head(kind, head.in_features, num_classes).to(head.weight.device)
    kept = {name: tensor[:num_classes] if tensor.dim() else tensor for name, tensor in head.state_dict().items()}
    narrowed.load_state_dict(kept)
    return narrowed


def is_head(head: nn.Module, name: HeadName) -> bool:
    """Tell whether a head is of the kind that bears a name."""
    return isinstance(head, CosineHead) == (name == "cosine")


def give_head(classifier: Classifier, name: HeadName, *, seed: int) -> None:
    """Put a new head of this kind, random from the seed, on a classifier that has one of another."""
    head = classifier.head
    if not is_head(head, name):
        with seeded(seed):
            classifier.head = new_head(name, head.in_features, head.out_features).to(head.weight.device)
