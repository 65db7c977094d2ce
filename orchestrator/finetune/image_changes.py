"""Changes the images of training batches before the frozen stages see them: mixing, and adversarial steps."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from orchestrator.finetune.adversarial import adversarial_images
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.freezing import Suffix
from orchestrator.finetune.losses import Objective, as_probabilities
from orchestrator.finetune.mixing import mix, mixing_generator
from orchestrator.finetune.prefix import Prefix, autocast
from orchestrator.finetune.steps import Step
from orchestrator.finetune.tasks import TaskObjective
from orchestrator.records import Hyperparameters


class ImageChanges:
    """Mix the images of a batch, and add what adversarial steps make of them, where the hyperparameters say so."""

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        settings: TrainingSettings,
        prefix: Prefix,
        suffix: Suffix,
        objective: Objective | TaskObjective,
    ) -> None:
        self._hyperparameters = hyperparameters
        self._settings = settings
        self._prefix = prefix
        self._suffix = suffix
        self._objective = objective

    @property
    def entrance(self) -> Prefix:
        """Give what training pixels go through first: the frozen stages, or nothing where images are changed."""
        return replace(self._prefix, stages=nn.Sequential()) if self._hyperparameters.changes_images else self._prefix

    def apply(self, step: Step, epoch: int, number: int) -> Step:
        """Change the images of batch `number` of an epoch, and run them through the frozen stages.

        Every rank mixes by the same share. Adversarial images come in addition to the others and weigh as much, half of
        the loss (Goodfellow, Shlens and Szegedy, 2015).
        """
        if not self._hyperparameters.changes_images:
            return step
        step = self._with_adversaries(self._mixed(step, epoch, number))
        with torch.no_grad(), autocast(self._settings):
            return replace(step, inputs=self._prefix.stages(step.inputs))

    def _mixed(self, step: Step, epoch: int, number: int) -> Step:
        if self._hyperparameters.mixing == "none":
            return step
        generator = mixing_generator(self._settings.order_seed, epoch, number)
        images, targets = mix(
            step.inputs,
            as_probabilities(step.targets, self._suffix.num_classes),
            self._hyperparameters.mixing,
            self._hyperparameters.mixing_alpha,
            generator,
        )
        return replace(step, inputs=images, targets=targets)

    def _with_adversaries(self, step: Step) -> Step:
        if self._hyperparameters.adversarial == 0:
            return step
        self._suffix.eval()
        moved = adversarial_images(
            self._logits,
            self._objective.sum_of_losses,
            step.inputs,
            step.targets,
            epsilon=self._hyperparameters.adversarial,
            mean=self._prefix.spec.mean,
            std=self._prefix.spec.std,
        )
        return replace(
            step,
            inputs=torch.cat([step.inputs, moved]),
            targets=torch.cat([step.targets, step.targets]),
            count=2 * step.count,
            scale=step.scale / 2,
        )

    def _logits(self, images: Tensor) -> Tensor:
        # In fp16 small slopes would be none: their scaler is for the weights.
        with nullcontext() if self._settings.precision == "fp16" else autocast(self._settings):
            logits: Tensor = self._suffix(self._prefix.stages(images))
        return logits.float()
