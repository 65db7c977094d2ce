"""Every key that says how a network is fine-tuned has an effect: each of its values trains other bits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import pytest
from finetune_examples import (
    ArraySamples,
    a_spec,
    some_hyperparameters,
    some_samples,
    some_settings,
    tiny_backbone,
    two_tasks,
)
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from orchestrator.config import AugmentConfig
from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.finetune.randomness import seeded
from orchestrator.records import Hyperparameters


@dataclass(frozen=True, kw_only=True)
class Case:
    """Name values of a key that must train different bits, and what else must be set so that they count."""

    values: tuple[object, ...]
    beside: dict[str, object] = field(default_factory=dict)
    backbone: str = "tiny_backbone"
    tasks: bool = False


SGD = {"optimizer": "sgd"}
PULLED = {"regularizer": "l2", "regularizer_weight": 0.1}
HYPERPARAMETERS: dict[str, Case] = {
    "freeze_depth": Case(values=(0, 1, 2, 3)),
    "learning_rate": Case(values=(1e-3, 2e-3)),
    "epochs": Case(values=(2, 3)),
    "strategy": Case(
        values=("freeze", "gradual", "probe_then_finetune", "feature_only", "feature_then_network"),
        beside={"epochs": 6},
    ),
    "head": Case(values=("linear", "cosine", "prototype")),
    "head_share": Case(values=(0.3, 0.6), beside={"strategy": "probe_then_finetune", "epochs": 4}),
    "unfreeze_every": Case(values=(1, 2), beside={"strategy": "gradual", "epochs": 3}),
    "layer_decay": Case(values=(1.0, 0.5)),
    "batch_size": Case(values=(4, 8)),
    "optimizer": Case(values=("sgd", "adam", "adamw"), beside={"weight_decay": 0.1}),
    "momentum": Case(values=(0.0, 0.5, 0.9), beside=SGD),
    "nesterov": Case(values=(False, True), beside=SGD),
    "weight_decay": Case(values=(0.0, 0.1)),
    "schedule": Case(values=("constant", "cosine", "one_cycle")),
    "warmup": Case(values=(0.0, 0.5)),
    "rate_scaling": Case(values=("none", "linear", "sqrt")),
    "clip_norm": Case(values=(None, 0.01, 0.1), beside=SGD),
    "accumulate": Case(values=(1, 2)),
    "ema_decay": Case(values=(None, 0.5, 0.9)),
    "patience": Case(values=(None, 1), beside={"epochs": 8, "learning_rate": 0.05}),
    "regularizer": Case(
        values=("none", "l2_sp", "cosine", "euclidean", "orthogonal", "l1", "l2"), beside={"regularizer_weight": 0.1}
    ),
    "regularizer_weight": Case(values=(0.0, 0.1, 0.2), beside=PULLED),
    "regularizer_scope": Case(values=("backbone", "head", "both"), beside=PULLED),
    # That of images with any number of labels refuses these.
    "loss": Case(values=("cross_entropy", "focal")),
    "focal_gamma": Case(values=(0.5, 2.0), beside={"loss": "focal"}),
    "label_smoothing": Case(values=(0.0, 0.1)),
    "smoothing_target": Case(values=("uniform", "model"), beside={"label_smoothing": 0.1}),
    "class_weights": Case(values=("none", "balanced")),
    "balanced": Case(values=(False, True)),
    "mixing": Case(values=("none", "mixup", "cutmix"), beside={"mixing_alpha": 1.0}),
    "mixing_alpha": Case(values=(0.2, 1.0), beside={"mixing": "mixup"}),
    "adversarial": Case(values=(0.0, 0.05, 0.1)),
    "dropout": Case(values=(0.0, 0.2, 0.5)),
    "stochastic_depth": Case(values=(None, 0.2, 0.7), backbone="skipping_backbone"),
    "task_weighting": Case(values=("equal", "size", "uncertainty", (1.0, 2.0)), tasks=True),
}

SETTINGS: dict[str, Case] = {
    "seed": Case(values=(3, 4), beside={"dropout": 0.2, "loader_seed": 3}),
    "loader_seed": Case(values=(None, 4)),
    "batch_norm": Case(values=("frozen", "train")),
    "precision": Case(values=("fp32", "bf16", "fp16")),
    "metric": Case(values=("val_accuracy", "val_loss"), beside={"epochs": 8, "learning_rate": 0.01}),
    "augment": Case(values=(AugmentConfig(), AugmentConfig(views=0, flip=True))),
}
# Where and how fast a training runs, not what it finds; `sync` is `train` on one rank.
WITHOUT_EFFECT = {"device", "activation_bytes", "compiled_depths"}

FRESH = {"views": 0}
AUGMENT: dict[str, Case] = {
    "views": Case(values=(2, 3, 0), beside={"crop": 0.2, "epochs": 3}),
    "flip": Case(values=(False, True), beside=FRESH),
    "crop": Case(values=(0.0, 0.1, 0.2), beside=FRESH),
    "colour": Case(values=(0.0, 0.2, 0.4), beside=FRESH),
    "randaugment": Case(values=(0, 1, 2), beside=FRESH),
    "magnitude": Case(values=(5, 15), beside={**FRESH, "randaugment": 2}),
    "erasing": Case(values=(0.0, 0.5, 1.0), beside=FRESH),
}


class Skipped(nn.Module):
    """A block beside a residual path, which is skipped now and then."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.skip = StochasticDepth(0.0, "row")

    def forward(self, inputs: Tensor) -> Tensor:
        skipped: Tensor = self.skip(self.block(inputs))
        return inputs + skipped


def skipping_backbone() -> Backbone:
    """The tiny network with a block after each of two stages that may be skipped."""
    backbone = tiny_backbone()
    stages = [nn.Sequential(backbone.stages[0], Skipped(8)), nn.Sequential(backbone.stages[1], Skipped(16))]
    return Backbone([*stages, backbone.stages[2]], feature_dim=backbone.feature_dim, name="skipping")


def skewed(count: int) -> ArraySamples:
    """Samples with labels that mean little, of which half are of the first class."""
    samples = some_samples(count, noisy_labels=True)
    samples.labels[::2] = 0
    return samples


def trained_bits(case: Case, chosen: Mapping[str, object] | None = None, **changes: object) -> str:
    """Train, and give a digest of the bits of what is kept and of what the last epoch left.

    Augmentations are those of the section, but for the `chosen` ones, which the recipe has.
    """
    names = {known.name for known in fields(TrainingSettings)}
    said = {**case.beside, **changes}
    augment = AugmentConfig.model_validate({key: said.pop(key) for key in list(said) if key in AUGMENT})
    settings = {"augment": augment, **{key: said.pop(key) for key in list(said) if key in names}}
    spec = a_spec(f"test_every_key:{case.backbone}")
    with seeded(0):
        backbone = create_backbone(spec.name, spec.kwargs, spec.image_size)
    classifier = new_classifier(backbone, (3, 2) if case.tasks else 3, seed=0)
    last: list[Tensor] = []

    def keep(end: EpochEnd) -> None:
        last[:] = end.state.suffix.values()

    fine_tune(
        classifier,
        spec,
        two_tasks(14, missing=5) if case.tasks else skewed(14),
        two_tasks(9, seed=1) if case.tasks else some_samples(9, seed=1),
        some_hyperparameters(**{"freeze_depth": 0, "batch_size": 4, **said, **(chosen or {})}),
        some_settings(**settings),
        on_epoch=keep,
    )
    bits = b"".join(tensor.numpy().tobytes() for tensor in (*classifier.state_dict().values(), *last))
    return hashlib.sha256(bits).hexdigest()


@pytest.mark.parametrize(("key", "case"), (HYPERPARAMETERS | SETTINGS | AUGMENT).items())
def test_each_value_of_a_key_trains_other_bits(key: str, case: Case) -> None:
    found = [trained_bits(case, **{key: value}) for value in case.values]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("key", sorted(AUGMENT.keys() - {"views"}))
def test_an_augmentation_that_a_recipe_chooses_trains_the_bits_that_the_sections_does(key: str) -> None:
    case = AUGMENT[key]
    chosen = {name: value for name, value in case.beside.items() if name != "views"}
    for value in case.values:
        assert trained_bits(Case(values=()), {**chosen, key: value}, **FRESH) == trained_bits(case, **{key: value})


def test_the_same_values_train_the_same_bits() -> None:
    case = Case(values=(), backbone="skipping_backbone")
    method = {"dropout": 0.2, "stochastic_depth": 0.5, "mixing": "cutmix", "adversarial": 0.05, "flip": True}
    assert trained_bits(case, **method, **FRESH) == trained_bits(case, **method, **FRESH)


def test_no_key_is_left_out() -> None:
    assert HYPERPARAMETERS.keys() | AUGMENT.keys() - {"views"} == Hyperparameters.model_fields.keys()
    assert SETTINGS.keys() | WITHOUT_EFFECT == {known.name for known in fields(TrainingSettings)}
    assert AUGMENT.keys() == AugmentConfig.model_fields.keys()
