"""Measure what each strategy, regulariser, loss and augmentation gives on PACS, changed alone from one base recipe.

    python tests/benchmarks/training/methods.py DATA WEIGHTS [--only NAME ...] [--seeds N] [--first-seed F]
                                                [--minutes M] [--tiny]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. Trains, in one process
without a cluster, on 400 images of photo, on as many of sketch, and on ten images a class of photo, with seeds F, by
default 0, to N - 1: a seed says which images are drawn, how the head starts and how samples are ordered. The best
epoch on 150 images is kept and tested on 580, the same ones for every training. Prints a JSON object for each training,
and at the end a table in Markdown. No training begins after M minutes; those of the first seed, then strategies come
first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pacs_images import IMAGE_SIZE, ArraySamples, Domain, read_domain

from orchestrator.config import AugmentConfig
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import new_classifier, predict_probabilities
from orchestrator.finetune.contracts import NO_AUGMENTATION, TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters

NUM_STAGES = 6
BASE = {"freeze_depth": 3, "learning_rate": 1e-3, "batch_size": 32, "optimizer": "adam", "weight_decay": 0.0}
BASE_NAME = "freeze depth 3 (base)"
SPEC = BackboneSpec(
    name="mobilenet_v2", kwargs={"width_mult": 0.35}, image_size=IMAGE_SIZE, resize="crop",
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Method:
    """Say what of the base recipe is changed."""

    name: str
    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    augment: AugmentConfig = NO_AUGMENTATION


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Say how large the trainings are; images of photo and sketch, epochs of them and of the few images a class."""

    images: int = 400
    per_class: int = 10
    validation: int = 150
    test: int = 580
    epochs: int = 6
    few_epochs: int = 15


def methods() -> list[Method]:
    """List what is compared.

    Weights of regularisers are not tuned: they make the penalty, where the base recipe ends, 0.3 to 1.2.
    """
    strategies: dict[str, dict[str, Any]] = {
        BASE_NAME: {},
        "head only": {"freeze_depth": NUM_STAGES},
        "full": {"freeze_depth": 0},
        "gradual unfreezing": {"strategy": "gradual"},
        "probe, then fine-tune": {"strategy": "probe_then_finetune"},
        "feature only": {"strategy": "feature_only"},
        "feature, then network": {"strategy": "feature_then_network"},
        "layer decay 0.5": {"layer_decay": 0.5},
    }
    regularizers: dict[str, dict[str, Any]] = {
        "L2-SP 0.1": {"regularizer": "l2_sp", "regularizer_weight": 0.1},
        "cosine 100": {"regularizer": "cosine", "regularizer_weight": 100.0},
        "Euclidean 1": {"regularizer": "euclidean", "regularizer_weight": 1.0},
        "orthogonal 1e-6": {"regularizer": "orthogonal", "regularizer_weight": 1e-6},
        "L1 1e-5": {"regularizer": "l1", "regularizer_weight": 1e-5},
        "L2 1e-5": {"regularizer": "l2", "regularizer_weight": 1e-5},
        "dropout 0.2": {"dropout": 0.2},
    }
    losses: dict[str, dict[str, Any]] = {
        "smoothing 0.1, uniform": {"label_smoothing": 0.1},
        "smoothing 0.1, model": {"label_smoothing": 0.1, "smoothing_target": "model"},
        "class weights": {"class_weights": "balanced"},
        "focal 2": {"loss": "focal"},
    }
    sampled: dict[str, dict[str, Any]] = {
        "balanced sampling": {"balanced": True},
        "mixup 0.2": {"mixing": "mixup"},
        "cutmix 0.2": {"mixing": "cutmix"},
        "FGSM 0.01": {"adversarial": 0.01},
    }
    augmentations = {
        "flip": AugmentConfig(views=0, flip=True),
        "crop 0.1": AugmentConfig(views=0, crop=0.1),
        "colour 0.3": AugmentConfig(views=0, colour=0.3),
        "RandAugment 2 of 9": AugmentConfig(views=0, randaugment=2),
        "erasing 0.25": AugmentConfig(views=0, erasing=0.25),
    }
    return [
        *(Method(name=name, kind="strategy", changes=changes) for name, changes in strategies.items()),
        *(Method(name=name, kind="regulariser", changes=changes) for name, changes in regularizers.items()),
        *(Method(name=name, kind="loss", changes=changes) for name, changes in losses.items()),
        *(Method(name=name, kind="data", augment=augment) for name, augment in augmentations.items()),
        *(Method(name=name, kind="data", changes=changes) for name, changes in sampled.items()),
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Hold a task: a domain, how its training images are drawn, and for how many epochs they are trained on."""

    name: str
    domain: Domain
    epochs: int
    images: int | None = None
    per_class: int | None = None

    def train(self, seed: int) -> ArraySamples:
        """Draw the training images."""
        if self.per_class is not None:
            return self.domain.pool.drawn_per_class(self.per_class, seed)
        assert self.images is not None
        return self.domain.pool.drawn(self.images, seed)


def tasks(data: Path, sizes: Sizes) -> list[Task]:
    """Read the domains."""
    photo, sketch = (
        read_domain(data, name, validation=sizes.validation, test=sizes.test) for name in ("photo", "sketch")
    )
    return [
        Task(name="photo", domain=photo, epochs=sizes.epochs, images=sizes.images),
        Task(name="sketch", domain=sketch, epochs=sizes.epochs, images=sizes.images),
        Task(
            name=f"photo, {sizes.per_class} a class", domain=photo, epochs=sizes.few_epochs, per_class=sizes.per_class
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what one training came to."""

    task: str
    method: str
    seed: int
    accuracy: float
    val_accuracy: float
    best_epoch: int
    seconds: float


def train(backbone: Backbone, task: Task, method: Method, seed: int) -> Outcome:
    """Fine-tune by a method and test the best epoch."""
    recipe = Hyperparameters.model_validate({**BASE, "epochs": task.epochs, **method.changes})
    settings = TrainingSettings(
        seed=seed, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy", augment=method.augment
    )
    classifier = new_classifier(backbone, len(task.domain.classes), seed=seed)
    result = fine_tune(classifier, SPEC, task.train(seed), task.domain.validation, recipe, settings)
    predicted = predict_probabilities(classifier, SPEC, task.domain.test.pixels, device="cpu").argmax(axis=1)
    return Outcome(
        task=task.name,
        method=method.name,
        seed=seed,
        accuracy=round(float((predicted == task.domain.test.labels).mean()), 4),
        val_accuracy=round(result.history[result.best_epoch - 1].val_accuracy, 4),
        best_epoch=result.best_epoch,
        seconds=round(result.seconds, 2),
    )


def plan(chosen: list[Method], seeds: range) -> Iterator[tuple[Method, int]]:
    """Order the trainings: a run that is cut short has every method once before any twice, and strategies first."""
    yield from ((method, seeds[0]) for method in chosen)
    for is_strategy in (True, False):
        for seed in seeds[1:]:
            yield from ((method, seed) for method in chosen if (method.kind == "strategy") == is_strategy)


def table(chosen: list[Method], outcomes: list[Outcome], names: list[str]) -> Iterator[str]:
    """Write the lines of a table: the mean accuracy over seeds, and the gain over the base with its least and most."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.method, outcome.task), {})[outcome.seed] = outcome.accuracy
    yield f"| Kind | Method | {' | '.join(names)} |"
    yield "|---" * (len(names) + 2) + "|"
    for method in chosen:
        own, base = ([found.get((which, name), {}) for name in names] for which in (method.name, BASE_NAME))
        is_base = method.name == BASE_NAME
        cells = [_spread(one) if is_base else _gain(one, other) for one, other in zip(own, base, strict=True)]
        yield f"| {method.kind} | {method.name} | {' | '.join(cells)} |"


def _spread(accuracies: dict[int, float]) -> str:
    if not accuracies:
        return ""
    values = accuracies.values()
    return f"{statistics.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def _gain(accuracies: dict[int, float], base: dict[int, float]) -> str:
    gains = [100 * (accuracies[seed] - base[seed]) for seed in accuracies.keys() & base.keys()]
    if not gains:
        return _spread(accuracies)
    mean = statistics.mean(accuracies.values())
    return f"{mean:.3f}, {statistics.mean(gains):+.1f} [{min(gains):.1f}, {max(gains):.1f}]"


def main() -> None:
    """Train, test and print."""
    names = [method.name for method in methods()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method, where the first seed is 0")
    parser.add_argument("--first-seed", type=int, default=0, help="seeds before this one are left out")
    parser.add_argument("--minutes", type=float, default=60.0, help="no training begins later than this")
    parser.add_argument("--tiny", action="store_true", help="try every line in a minute; the figures mean nothing")
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    sizes = Sizes(images=32, per_class=2, validation=16, test=16, epochs=3, few_epochs=3) if arguments.tiny else Sizes()
    backbone, _ = load_pretrained(str(arguments.weights), SPEC, seed=0)
    chosen = [method for method in methods() if method.name in arguments.only]
    read = tasks(arguments.data, sizes)
    outcomes: list[Outcome] = []
    for method, seed in plan(chosen, range(arguments.first_seed, arguments.seeds)):
        for task in read:
            if time.monotonic() - started > 60 * arguments.minutes:
                print(f"left out for lack of time: {method.name}, seed {seed}, {task.name}", file=sys.stderr)
                continue
            outcomes.append(train(backbone, task, method, seed))
            print(json.dumps(vars(outcomes[-1])), flush=True)
    print("\n".join(table(chosen, outcomes, [task.name for task in read])))


if __name__ == "__main__":
    main()
