"""Hyperparameters, and the record of those that a search picked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.config import FineTuneConfig
from orchestrator.records.augmentation import SearchedAugmentation
from orchestrator.records.base import Record

PLAIN_CHOICES = frozenset({"learning_rate", "epochs", "batch_size", "optimizer", "weight_decay"})
"""What heads that are trained together may differ in."""

# Fields that count for nothing while another has one of these values.
_SWITCHES: dict[str, tuple[str, tuple[object, ...]]] = {
    "head_share": ("strategy", ("freeze", "gradual")),
    "unfreeze_every": ("strategy", ("freeze", "probe_then_finetune", "feature_only", "feature_then_network")),
    "momentum": ("optimizer", ("adam", "adamw")),
    "nesterov": ("optimizer", ("adam", "adamw")),
    "regularizer_weight": ("regularizer", ("none",)),
    "regularizer_scope": ("regularizer", ("none",)),
    "focal_gamma": ("loss", ("cross_entropy", "binary_cross_entropy")),
    "smoothing_target": ("label_smoothing", (0.0,)),
    "mixing_alpha": ("mixing", ("none",)),
    "magnitude": ("randaugment", (0,)),
}

# Fields that count for nothing where the head alone is trained by cross-entropy with targets as they are.
_IDLE_FOR_HEADS = frozenset(
    {
        "strategy",
        "head_share",
        "unfreeze_every",
        "layer_decay",
        "stochastic_depth",
        "regularizer_weight",
        "regularizer_scope",
        "focal_gamma",
        "smoothing_target",
        "mixing_alpha",
    }
)
_DEFAULTS = {name: field.default for name, field in FineTuneConfig.model_fields.items()}
# A method that is new counts here unless it is said to be idle: heads that need it must not be trained without it.
_BEYOND_PLAIN = frozenset(_DEFAULTS) - PLAIN_CHOICES - _IDLE_FOR_HEADS


class Hyperparameters(FineTuneConfig, SearchedAugmentation):
    """Hold one complete configuration of a fine-tuning run: its depth, rate and epochs, and how it is done."""

    freeze_depth: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)

    @property
    def changes_images(self) -> bool:
        """Tell whether images are changed batch by batch: then nothing that frozen stages give can be kept."""
        return self.mixing != "none" or self.adversarial > 0

    @property
    def is_multi_label(self) -> bool:
        """Tell whether samples have any number of labels: there is a loss for these alone."""
        return self.loss == "binary_cross_entropy"

    def has_one_pass(self, num_stages: int) -> bool:
        """Tell whether nothing is trained step by step: prototypes on a backbone whose every stage is frozen."""
        return self.head == "prototype" and self.freeze_depth == num_stages

    @property
    def methods(self) -> dict[str, object]:
        """Give what is done otherwise than by default and has an effect, batches and the optimizer apart, by name.

        Of how samples are varied there is what a search chose, be it nothing.
        """
        otherwise = {
            name: value
            for name, default in _DEFAULTS.items()
            if (value := getattr(self, name)) != default and name not in PLAIN_CHOICES
        }
        every = {**otherwise, **self.own_augmentations}
        return {name: value for name, value in every.items() if not self._is_idle(name)}

    def _is_idle(self, name: str) -> bool:
        """Tell whether a field has no effect beside the others."""
        switch, idle = _SWITCHES.get(name, ("", ()))
        return bool(switch) and getattr(self, switch) in idle

    @property
    def is_plain(self) -> bool:
        """Tell whether a head is trained by plain cross-entropy at a constant rate, as many heads at once are.

        On features that do not change.
        """
        return not self.varies_by_choice and all(getattr(self, name) == _DEFAULTS[name] for name in _BEYOND_PLAIN)


class Recipe(Record):
    """Hold the hyperparameters that a search picked for a group.

    `origin` says whether they are the group's own, those that are best over all groups, or the fixed rule's, and
    `reason` why. `value` is the score of the group's trial, which was picked for being high, None where only another
    group has tried the recipe, whose trial is then named; `score` the mean over `runs` fresh re-splits with its
    `standard_error`, None where there was no budget for a race.
    """

    group: str
    trial_id: str
    metric: str
    value: float | None
    hyperparameters: Hyperparameters
    origin: Literal["group", "pooled", "fixed_rule"] = "group"
    reason: str = ""
    score: float | None = None
    standard_error: float | None = None
    runs: int = 0
