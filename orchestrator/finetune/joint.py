"""Adds to the loss of a target what its source costs: the source's own loss, and the distance of both in features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.cosine import first_outputs
from orchestrator.finetune.domain_penalties import domain_penalty
from orchestrator.finetune.freezing import Suffix
from orchestrator.finetune.losses import Objective
from orchestrator.finetune.steps import SourcePart, Step


class JointNetwork(nn.Module):
    """Give a suffix's logits [n, K] with the features [n, d] before its head, both from one pass."""

    def __init__(self, suffix: Suffix) -> None:
        super().__init__()
        self.suffix = suffix

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run what the frozen stages give through the suffix."""
        features = inputs
        for stage in self.suffix.stages:
            features = stage(features)
        logits = features
        for layer in list(self.suffix)[self.suffix.num_free :]:
            logits = layer(logits)
        return logits, features


@dataclass(frozen=True, kw_only=True)
class JointOutputs:
    """Hold the logits of the target's part of a batch, and logits and features of all of it, the target first."""

    target: Tensor
    logits: Tensor
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class JointLoss:
    """Say what a source adds to the loss; `objective` compares its logits with its labels.

    Both parts go through the network as one batch: BatchNorm that learns sees them mixed. Source and target are trained
    jointly as by Ge and Yu, "Borrowing Treasures from the Wealthy: Deep Transfer Learning through Selective Joint
    Fine-Tuning", 2017, but on all of the source, and its labels where they are learnt in one softmax with the target's.
    """

    companion: Companion
    objective: Objective

    def forward(self, network: Callable[..., tuple[Tensor, Tensor]], batch: Step) -> JointOutputs:
        """Run both parts of a batch through the network."""
        parts = [batch.inputs] if batch.source is None else [batch.inputs, batch.source.inputs]
        logits, features = network(torch.cat(parts))
        return JointOutputs(target=logits[: len(batch.inputs)], logits=logits, features=features)

    def added(self, outputs: JointOutputs, batch: Step) -> Tensor:
        """Give what the batch's source adds [], such that the mean over the ranks is that of the global batch.

        The penalty is that of the rank's own part of the batch, averaged over the ranks.
        """
        if batch.source is None:
            return outputs.features.new_zeros((), dtype=torch.float32)
        target, source = outputs.features.float().tensor_split([len(batch.inputs)])
        added = self.companion.weight * batch.source.scale * self._source_loss(outputs, batch.source, len(target))
        if self.companion.penalty == "none" or batch.count == 0:
            return added
        return added + self.companion.penalty_weight * domain_penalty(self.companion.penalty, source, target)

    def _source_loss(self, outputs: JointOutputs, part: SourcePart, num_target: int) -> Tensor:
        logits = outputs.logits[num_target:].float()
        if self.companion.is_uniform:
            return -logits.log_softmax(dim=1).mean(dim=1).sum()
        return self.objective.sum_of_losses(logits, part.targets)


def without_extra(classifier: Classifier, num_extra: int) -> Classifier:
    """Give a classifier without the last outputs of its head, sharing the backbone: the softmax is over the rest."""
    if num_extra == 0:
        return classifier
    head = first_outputs(classifier.head, classifier.head.out_features - num_extra)
    return Classifier(classifier.backbone, head).eval()
