"""Compares logits with targets: what training minimises over the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from orchestrator.config import LossName, SmoothingTarget
from orchestrator.records import Hyperparameters


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Say which loss a classifier is trained with; the defaults are plain cross-entropy.

    With targets q [K], probabilities p of the model and class weights w, a sample's loss is -sum_k w_k q_k ln p_k for
    `cross_entropy`, and -sum_k w_k q_k (1 - p_k)^gamma ln p_k for `focal` (Lin et al., 2017): linear in the targets.

    For `binary_cross_entropy` targets are 1 for each label that a sample has and 0 for the others, and a sample's loss
    is the mean over labels of -(q_k ln p_k + (1 - q_k) ln(1 - p_k)), p_k the sigmoid of a logit: linear in the targets
    too (Nam et al., "Large-scale Multi-label Text Classification - Revisiting Neural Networks", 2014). Neither
    smoothing nor class weights go with it.

    `smoothing` eps in [0, 1) changes the targets: towards `uniform` to (1 - eps) q + eps / K (Szegedy et al., 2016),
    towards the `model` to (q + eps p) / (1 + eps), p taken as a constant: the targets of soft bootstrapping with beta =
    1 / (1 + eps) (Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", 2015). For
    cross-entropy without class weights the latter has the gradient of the plain loss, divided by 1 + eps. Of uniform
    smoothing the first `num_smoothed` classes have equal parts, by default all: the outputs of a source are never the
    truth of a target sample.

    `class_weights` [K] float32 lie on the device of the logits. They are not divided by their sum over the batch: with
    a mean of one over the training set, as `balanced_class_weights` gives them, sums over samples stay comparable
    with those of the plain loss, and add up over batches and ranks.
    """

    kind: LossName = "cross_entropy"
    gamma: float = 2.0
    smoothing: float = 0.0
    smoothing_towards: SmoothingTarget = "uniform"
    class_weights: Tensor | None = None
    num_smoothed: int | None = None

    def sum_of_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Give the sum [] float32 of the losses of logits [n, K], for class indices [n] int64 or targets [n, K]."""
        logits = logits.float()
        if self.kind == "binary_cross_entropy":
            return binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum") / logits.shape[1]
        uniform = self.smoothing if self.smoothing_towards == "uniform" else 0.0
        if self.smoothing_towards == "model" and self.smoothing > 0:
            targets = as_probabilities(targets, logits.shape[1])
            targets = (targets + self.smoothing * logits.detach().softmax(dim=1)) / (1 + self.smoothing)
        if uniform > 0 and self.num_smoothed is not None:
            targets, uniform = self._smoothed(as_probabilities(targets, logits.shape[1]), self.num_smoothed), 0.0
        if self.kind == "cross_entropy":
            return cross_entropy(logits, targets, weight=self.class_weights, label_smoothing=uniform, reduction="sum")
        targets = as_probabilities(targets, logits.shape[1])
        return self._focal((1 - uniform) * targets + uniform / logits.shape[1], logits)

    def _smoothed(self, targets: Tensor, count: int) -> Tensor:
        equal = torch.zeros_like(targets)
        equal[:, :count] = 1 / count
        return (1 - self.smoothing) * targets + self.smoothing * equal

    def _focal(self, targets: Tensor, logits: Tensor) -> Tensor:
        logs = logits.log_softmax(dim=1)
        # 1 - p by way of expm1 keeps its digits where p is near one; the bound keeps the power's gradient finite there.
        others = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny)
        losses = -targets * others.pow(self.gamma) * logs
        return (losses if self.class_weights is None else losses * self.class_weights).sum()


def create_objective(
    hyperparameters: Hyperparameters, class_counts: NDArray[np.int64], num_classes: int, device: str
) -> Objective:
    """Create the loss that the hyperparameters name, weighing classes by how many training samples have each.

    Of `num_classes`, `class_counts` may leave out the last ones, of which there are none.
    """
    weights = None
    if hyperparameters.class_weights == "balanced":
        padded = np.pad(class_counts, (0, num_classes - len(class_counts)))
        weights = balanced_class_weights(padded).to(device)
    return Objective(
        kind=hyperparameters.loss,
        gamma=hyperparameters.focal_gamma,
        smoothing=hyperparameters.label_smoothing,
        smoothing_towards=hyperparameters.smoothing_target,
        class_weights=weights,
    )


def as_probabilities(targets: Tensor, num_classes: int) -> Tensor:
    """Turn class indices [n] int64 into probabilities [n, K] float32; those that are probabilities stay as they are."""
    return targets if targets.is_floating_point() else one_hot(targets, num_classes).float()


def balanced_class_weights(class_counts: NDArray[np.int64]) -> Tensor:
    """Weigh classes [K] by n / (K' n_k), float32, for n_k of n training samples, K' the number of classes that occur.

    Every class that occurs has the same sum of weights, and the mean over the training samples is one. A class
    without samples gets 0. The rule is scikit-learn's `balanced`, after King and Zeng, "Logistic Regression in Rare
    Events Data", 2001.
    """
    counts = torch.from_numpy(class_counts).double()
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp_min(1)), 0.0).float()
