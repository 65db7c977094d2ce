"""Lets a head start from the prototypes of the samples that a training is about to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchestrator.errors import TrainingError
from orchestrator.finetune.companions import CompanionFeed
from orchestrator.finetune.freezing import Suffix
from orchestrator.finetune.prefix import Prefix, autocast
from orchestrator.finetune.prototypes import LabelledFeatures, find_prototypes
from orchestrator.finetune.steps import Step
from orchestrator.records import Hyperparameters


@dataclass(frozen=True, kw_only=True)
class HeadStart:
    """Hold what prototypes are made of: the target's samples as `steps` of the first epoch, and those of a source.

    The target's classes are the first `known` of the head.
    """

    suffix: Suffix
    prefix: Prefix
    hyperparameters: Hyperparameters
    steps: Callable[[], Iterator[Step]]
    feed: CompanionFeed | None
    known: int

    def fit(self, head: nn.Linear) -> float:
        """Make a head of the classes' prototypes, and give the mean loss of the target's samples.

        The head of `prototype` has those of the joint loss, of target and source by their weights in it: classes of
        both are of both. The rows of a cosine head are of the target's samples alone for its classes, and of the
        source's for those of its own. Raises TrainingError where prototypes are asked of a source without labels.
        """
        found = find_prototypes(
            self._features,
            self.suffix.num_classes,
            head.in_features,
            device=self.prefix.settings.device,
            linear=self._is_prototype,
        )
        found.write_to(head)
        return found.loss

    @property
    def _is_prototype(self) -> bool:
        return self.hyperparameters.head == "prototype"

    def _features(self) -> Iterator[LabelledFeatures]:
        """Give the features and classes of this rank's samples as the first epoch shows them, the target's first."""
        self.suffix.eval()
        for step in self.steps():
            if step.count:
                yield LabelledFeatures(rows=self._before_head(step.inputs), labels=step.targets)
        if self.feed is not None:
            yield from self._of_source(self.feed)

    def _of_source(self, feed: CompanionFeed) -> Iterator[LabelledFeatures]:
        if self._is_prototype and feed.is_uniform:
            raise TrainingError(
                "a source that is learnt as outliers must have a head that is not made of prototypes",
                value=self.hyperparameters.head,
                remedy="Take a linear or a cosine head.",
            )
        lowest, weight = (0, feed.sample_weight) if self._is_prototype else (self.known, 1.0)
        for inputs, labels in feed.labelled_from(lowest) if weight > 0 else []:
            with torch.no_grad(), autocast(self.prefix.settings):
                rows = self.suffix.features(inputs)
            yield LabelledFeatures(rows=rows, labels=labels, weight=weight, is_target=False)

    def _before_head(self, inputs: Tensor) -> Tensor:
        """Give the features of a step's inputs, which are images where these are changed batch by batch."""
        with torch.no_grad(), autocast(self.prefix.settings):
            is_raw = self.hyperparameters.changes_images
            return self.suffix.features(self.prefix.stages(inputs) if is_raw else inputs)
