"""Measure a head for each domain of PACS on one network against one head for all, and against a model for each.

    python tests/benchmarks/training/subset_heads.py DATA WEIGHTS [--setup NAME] [--seeds N N ...] [--tiny]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. The four domains are the
subsets of one group. Every model is trained in one process without a cluster, for equally many epochs of the same
images: all cost the same, the four single models together too. Seeds say which images are drawn, how heads start and
how samples are ordered; the test images are the same for all. Set-ups:

- `few`: 10 images of every class and domain, 12 epochs.
- `all`: every image that is not held out, 3 epochs.
- `apart`: as `few`, but every domain has four of the seven classes, two of which the next domain has too.
  Here `one head, masked` is asked for the most probable of the subset's classes.

Prints a JSON object for each training, and a table in Markdown: accuracies by seed and the gain over one head, paired
by image, means over seeds, with 95% bootstrap intervals over images. Trainings are kept in `--keep`, so that seeds may
be run one by one and set side by side.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import SPEC
from numpy.typing import NDArray
from pacs_images import ArraySamples, read_domain
from two_tasks import DOMAINS, RECIPE, joined

from orchestrator.evaluation.heads import by_own_heads
from orchestrator.evaluation.intervals import bootstrap_interval
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import new_classifier, predict_probabilities
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.tasks import NO_LABEL
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Hyperparameters, TaskClasses

ONE, MASKED = "one head", "one head, masked"
HEADS = {"heads, equal": "equal", "heads, by size": "size"}
SINGLE = "a model each"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Say how much of each domain is learnt: images of a class (None takes all), how long, and which classes."""

    per_class: int | None
    epochs: int
    known: tuple[tuple[int, ...], ...] | None = None


SETUPS = {
    "few": Setup(per_class=10, epochs=12),
    "all": Setup(per_class=None, epochs=3),
    "apart": Setup(per_class=10, epochs=12, known=((0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 0), (6, 0, 1, 2))),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Hold the samples of every domain: pixels, class indices [n] over all classes."""

    train: tuple[ArraySamples, ...]
    validation: tuple[ArraySamples, ...]
    test: tuple[ArraySamples, ...]


def read_split(data: Path, setup: Setup, seed: int, *, validation: int, test: int) -> Split:
    """Read every domain and draw its training images; of classes that a domain does not know there are none."""
    parts: dict[str, list[ArraySamples]] = {"train": [], "validation": [], "test": []}
    for number, name in enumerate(DOMAINS):
        domain = read_domain(data, name, validation=validation, test=test)
        known = range(len(domain.classes)) if setup.known is None else setup.known[number]
        pool, judge, held_out = (
            found.chosen(np.flatnonzero(np.isin(found.labels, known)))
            for found in (domain.pool, domain.validation, domain.test)
        )
        drawn = pool if setup.per_class is None else pool.drawn_per_class(setup.per_class, seed)
        for split, found in (("train", drawn), ("validation", judge), ("test", held_out)):
            parts[split].append(found)
    return Split(**{name: tuple(found) for name, found in parts.items()})


def heads_of(split: Split) -> list[TaskClasses]:
    """Give the head of every domain, over the classes that it has."""
    return [
        TaskClasses(task=name, classes=[str(label) for label in np.unique(found.labels)])
        for name, found in zip(DOMAINS, split.train, strict=True)
    ]


def for_heads(parts: tuple[ArraySamples, ...], heads: list[TaskClasses]) -> ArraySamples:
    """Put the domains' samples together, each labelled for its own head alone: [n, T]."""
    labelled = []
    for number, (found, head) in enumerate(zip(parts, heads, strict=True)):
        labels = np.full((len(found), len(heads)), NO_LABEL)
        labels[:, number] = places(found.labels, head)
        labelled.append(replace(found, labels=labels))
    return joined(labelled)


def places(labels: NDArray[np.int64], head: TaskClasses) -> NDArray[np.int64]:
    """Turn class indices over all classes into those of a head."""
    return np.searchsorted([int(name) for name in head.classes], labels)


def predict(
    backbone: Backbone,
    train: ArraySamples,
    validation: ArraySamples,
    class_counts: list[int],
    pixels: NDArray[np.uint8],
    *,
    seed: int,
    epochs: int,
    weighting: str = "equal",
) -> NDArray[np.float32]:
    """Fine-tune, keeping the best epoch, and give the probabilities of test images."""
    classifier = new_classifier(backbone, class_counts, seed=seed)
    settings = TrainingSettings(seed=seed, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy")
    changes: dict[str, Any] = {"epochs": epochs, "task_weighting": weighting}
    recipe = Hyperparameters.model_validate({**RECIPE, **changes})
    fine_tune(classifier, SPEC, train, validation, recipe, settings)
    return predict_probabilities(classifier, SPEC, pixels, device="cpu")


Answers = dict[str, NDArray[np.int64]]
"""The class that each model gives the test images of all domains, one domain after the other."""


def answer(backbone: Backbone, split: Split, setup: Setup, seed: int) -> Iterator[tuple[str, NDArray[np.int64], float]]:
    """Train every model; give its answers and its seconds."""
    heads = heads_of(split)
    classes = sorted({name for head in heads for name in head.classes})
    subsets = [head.task for head, found in zip(heads, split.test, strict=True) for _ in range(len(found))]
    pixels = joined(split.test).pixels
    started = time.perf_counter()
    given = {"seed": seed, "epochs": setup.epochs}
    train, judge = joined(split.train), joined(split.validation)
    one = predict(backbone, train, judge, [len(classes)], pixels, **given)
    yield ONE, one.argmax(axis=1), time.perf_counter() - started
    if setup.known is not None:
        known = {head.task: np.isin(classes, head.classes) for head in heads}
        yield MASKED, np.where([known[name] for name in subsets], one, -1).argmax(axis=1), 0.0
    train, judge = for_heads(split.train, heads), for_heads(split.validation, heads)
    for name, weighting in HEADS.items():
        started = time.perf_counter()
        counts = [len(head.classes) for head in heads]
        found = predict(backbone, train, judge, counts, pixels, weighting=weighting, **given)
        yield name, by_own_heads(found, subsets, heads, classes).argmax(axis=1), time.perf_counter() - started
    started, single = time.perf_counter(), []
    for head, own, validation, test in zip(heads, split.train, split.validation, split.test, strict=True):
        own, validation = (replace(part, labels=places(part.labels, head)) for part in (own, validation))
        found = predict(backbone, own, validation, [len(head.classes)], test.pixels, **given)
        single.append(np.array([classes.index(name) for name in head.classes])[found.argmax(axis=1)])
    yield SINGLE, np.concatenate(single), time.perf_counter() - started


def measure(backbone: Backbone, data: Path, name: str, seed: int, keep: Path, judges: dict[str, int]) -> None:
    """Train and test all models of a set-up and a seed, and keep which images each gets right."""
    target = keep / f"{name}-{seed}.npz"
    if target.exists():
        return
    setup = SETUPS[name]
    split = read_split(data, setup, seed, **judges)
    truth = joined(split.test).labels
    right: Answers = {"domain": np.repeat(np.arange(len(DOMAINS)), [len(found) for found in split.test])}
    for model, found, seconds in answer(backbone, split, setup, seed):
        right[model] = (found == truth).astype(np.int64)
        line = {"setup": name, "seed": seed, "model": model, "accuracy": round(float(right[model].mean()), 4)}
        print(json.dumps({**line, "images": len(joined(split.train)), "seconds": round(seconds, 1)}), flush=True)
    keep.mkdir(parents=True, exist_ok=True)
    np.savez(target, **right)


def table(keep: Path, name: str, seeds: list[int]) -> Iterator[str]:
    """Write the lines of a table: accuracies, and gains over one head in points."""
    found = [dict(np.load(keep / f"{name}-{seed}.npz")) for seed in seeds]
    yield f"| {name}: model | Accuracy by seed | Gain over one head (points) | {' | '.join(DOMAINS)} |"
    yield f"|---|---|---|{'---|' * len(DOMAINS)}"
    base = np.stack([right[ONE] for right in found]).mean(axis=0)
    domain = found[0].pop("domain")
    for model in found[0]:
        own = np.stack([right[model] for right in found])
        gains = [own.mean(axis=0) - base]
        gains += [gains[0][domain == number] for number in range(len(DOMAINS))]
        told = ["" for _ in gains] if model == ONE else [_points(gain) for gain in gains]
        yield f"| {model} | {', '.join(f'{value:.3f}' for value in own.mean(axis=1))} | {' | '.join(told)} |"


def _points(gains: NDArray[np.float64]) -> str:
    low, high = bootstrap_interval(gains, 2000, 0)
    return f"{100 * gains.mean():+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--setup", choices=list(SETUPS), default="few")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, default=Path("subset_heads"), help="where trainings are kept")
    parser.add_argument("--tiny", action="store_true", help="few images judge: the figures mean nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    judges = {"validation": 16, "test": 16} if arguments.tiny else {"validation": 50, "test": 500}
    backbone, _ = load_pretrained(str(arguments.weights), SPEC, seed=0)
    for seed in arguments.seeds:
        measure(backbone, arguments.data, arguments.setup, seed, arguments.keep, judges)
    print("\n".join(table(arguments.keep, arguments.setup, arguments.seeds)))


if __name__ == "__main__":
    main()
