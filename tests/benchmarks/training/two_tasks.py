"""Measure two tasks on one network against two single models on PACS: the class and the domain of every picture.

    python tests/benchmarks/training/two_tasks.py DATA WEIGHTS [--seeds N] [--images N] [--epochs N] [--tiny]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. Every model is trained on
the same images, in one process without a cluster. In the same epochs a model of both tasks costs half of two single
ones; in twice as many it costs the same. Seeds 0 to N - 1 say which images are drawn, how heads start and how samples
are ordered; the test images are the same for all. Prints a JSON object for each training, whether a resumed training is
bitwise the uninterrupted one, and a table in Markdown: the gain of each joint model over the single one, paired by
image, the mean over seeds, with its 95% bootstrap interval over images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import SPEC
from numpy.typing import NDArray
from pacs_images import ArraySamples, read_domain

from orchestrator.evaluation.intervals import bootstrap_interval
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Hyperparameters

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
TASKS = ("class", "domain")
RECIPE: dict[str, Any] = {"freeze_depth": 4, "learning_rate": 1e-3, "batch_size": 32, "optimizer": "adam"}
JOINT: dict[str, tuple[int, str]] = {
    "joint, equal": (1, "equal"),
    "joint, uncertainty": (1, "uncertainty"),
    "joint, equal, twice the epochs": (2, "equal"),
}
"""How many times the single models' epochs a joint model is trained, and how its tasks are weighed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Hold the pictures of all domains, labelled [n, 2] by class and by domain."""

    class_counts: tuple[int, int]
    pool: tuple[ArraySamples, ...]
    validation: ArraySamples
    test: ArraySamples

    def train(self, per_domain: int, seed: int) -> ArraySamples:
        """Draw as many pictures of every domain."""
        return joined([found.drawn(per_domain, seed) for found in self.pool])


def joined(parts: Sequence[ArraySamples]) -> ArraySamples:
    """Put samples one after the other."""
    return ArraySamples(
        pixels=np.concatenate([part.pixels for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        keys=np.concatenate([part.keys for part in parts]),
    )


def read_pictures(data: Path, *, validation: int, test: int) -> Pictures:
    """Read every domain; so many pictures of each judge."""
    domains = [read_domain(data, name, validation=validation, test=test) for name in DOMAINS]
    parts = {
        split: [_with_domain(getattr(domain, split), number) for number, domain in enumerate(domains)]
        for split in ("pool", "validation", "test")
    }
    return Pictures(
        class_counts=(len(domains[0].classes), len(DOMAINS)),
        pool=tuple(parts["pool"]),
        validation=joined(parts["validation"]),
        test=joined(parts["test"]),
    )


def _with_domain(samples: ArraySamples, number: int) -> ArraySamples:
    return replace(samples, labels=np.stack([samples.labels, np.full(len(samples), number)], axis=1))


def only(samples: ArraySamples, task: int) -> ArraySamples:
    """Leave the labels of one task."""
    return replace(samples, labels=samples.labels[:, task])


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """Hold a trained model, the states after its epochs, and how long it took."""

    classifier: Classifier
    states: list[TrainingState]
    seconds: float


def train(
    backbone: Backbone,
    train_on: ArraySamples,
    judge_by: ArraySamples,
    class_counts: Sequence[int],
    seed: int,
    *,
    resume: TrainingState | None = None,
    **changes: object,
) -> Trial:
    """Fine-tune, keeping the best epoch."""
    classifier = new_classifier(backbone, class_counts, seed=seed)
    settings = TrainingSettings(seed=seed, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy")
    states: list[TrainingState] = []
    started = time.perf_counter()
    fine_tune(
        classifier,
        SPEC,
        train_on,
        judge_by,
        Hyperparameters.model_validate({**RECIPE, **changes}),
        settings,
        on_epoch=lambda end: states.append(end.state),
        resume=resume,
    )
    return Trial(classifier=classifier, states=states, seconds=time.perf_counter() - started)


def correct(classifier: Classifier, test: ArraySamples) -> list[NDArray[np.bool_]]:
    """Tell for each task of a classifier which test pictures [n] it gets right."""
    found = predict_probabilities(classifier, SPEC, test.pixels, device="cpu")
    parts = np.split(found, np.cumsum(classifier.class_counts)[:-1], axis=1)
    labels = test.labels if test.labels.ndim == 2 else test.labels[:, None]
    return [part.argmax(axis=1) == labels[:, task] for task, part in enumerate(parts)]


Correct = dict[tuple[str, str], list[NDArray[np.bool_]]]
"""Which test pictures a model gets right, a column for each seed, by model and task."""


def measure(backbone: Backbone, pictures: Pictures, *, images: int, epochs: int, seeds: int) -> Correct:
    """Train the single and the joint models with every seed and test them."""
    found: Correct = {}
    for seed in range(seeds):
        drawn = pictures.train(images, seed)
        for task, name in enumerate(TASKS):
            train_on, judge_by, test = (only(part, task) for part in (drawn, pictures.validation, pictures.test))
            trial = train(backbone, train_on, judge_by, [pictures.class_counts[task]], seed, epochs=epochs)
            _keep(found, "single", [name], correct(trial.classifier, test), seed, trial.seconds)
        for model, (factor, weighting) in JOINT.items():
            changes = {"epochs": factor * epochs, "task_weighting": weighting}
            trial = train(backbone, drawn, pictures.validation, pictures.class_counts, seed, **changes)
            _keep(found, model, TASKS, correct(trial.classifier, pictures.test), seed, trial.seconds)
    return found


def _keep(
    found: Correct, model: str, names: Sequence[str], right: list[NDArray[np.bool_]], seed: int, seconds: float
) -> None:
    for name, column in zip(names, right, strict=True):
        found.setdefault((model, name), []).append(column)
    accuracies = {name: round(float(column.mean()), 4) for name, column in zip(names, right, strict=True)}
    print(json.dumps({"model": model, "seed": seed, **accuracies, "seconds": round(seconds, 1)}), flush=True)


def is_resumed_exactly(backbone: Backbone, pictures: Pictures, *, images: int, epochs: int) -> bool:
    """Tell whether a joint training that was stopped half-way ends with the same weights."""
    given = (backbone, pictures.train(images, 0), pictures.validation, pictures.class_counts, 0)
    changes = {"epochs": epochs, "task_weighting": "uncertainty"}
    whole = train(*given, **changes)
    rest = train(*given, resume=whole.states[epochs // 2 - 1], **changes)
    weights = rest.classifier.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in whole.classifier.state_dict().items())


def table(found: Correct) -> Iterator[str]:
    """Write the lines of a table: accuracy, and the joint models' gains in points."""
    yield "| Task | Model | Accuracy by seed | Gain over the single model (points) |"
    yield "|---|---|---|---|"
    for task in TASKS:
        single = np.stack(found["single", task])
        for model in ("single", *JOINT):
            own = np.stack(found[model, task])
            accuracies = ", ".join(f"{accuracy:.3f}" for accuracy in own.mean(axis=1))
            gains = own.mean(axis=0) - single.mean(axis=0)
            low, high = bootstrap_interval(gains, 2000, 0)
            gain = "" if model == "single" else f"{100 * gains.mean():+.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            yield f"| {task} | {model} | {accuracies} | {gain} |"


def main() -> None:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--images", type=int, default=300, help="training images of each domain")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="try every line in a minute; the figures mean nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    judges = {"validation": 16, "test": 16} if arguments.tiny else {"validation": 100, "test": 500}
    images, epochs = (16, 2) if arguments.tiny else (arguments.images, arguments.epochs)
    backbone, _ = load_pretrained(str(arguments.weights), SPEC, seed=0)
    pictures = read_pictures(arguments.data, **judges)
    found = measure(backbone, pictures, images=images, epochs=epochs, seeds=arguments.seeds)
    print(json.dumps({"resumed_exactly": is_resumed_exactly(backbone, pictures, images=min(images, 64), epochs=4)}))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
