"""Measure on PACS what each head gives with 1, 5 and 10 images a class, on the frozen features of one backbone.

    python tests/benchmarks/training/few_shot.py DATA WEIGHTS [--draws N] [--shots K ...]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. For each domain and number
of images a class, N draws of training images from two thirds of the domain; every head is trained on the same draw and
tested on the other third. Heads that are trained are shown at several settings, and the best of them on the test images
is what prototypes are compared with, which nobody could have chosen and which favours the others. A linear head is
also shown at the setting that one would have taken: the one that stratified folds of the training images find best
(on ties the mean of what they give), and with one image a class, where there is nothing to choose by, the mean of all
settings. Prints a line for each draw, and at the end a table in Markdown: mean test accuracies, and prototypes less
the others with 95% intervals over draws.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from methods import NUM_STAGES, SPEC
from numpy.typing import NDArray
from pacs_images import ArraySamples, read_domain
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import extract_features, new_classifier
from orchestrator.finetune.contracts import Activations, Layout, TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Hyperparameters

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
# Regularisation of the logistic regressions, from strong to weak, on features as they are and on unit ones.
STRENGTHS = (1e-2, 1e-1)
UNIT_STRENGTHS = (1.0, 10.0)
# Rate, weight decay and epochs of heads that are trained by steps.
LINEAR = [(1e-3, 0.0, 30), (1e-2, 0.0, 30), (1e-3, 1e-1, 30)]
# What is chosen from by folds: rates of the default search space, its most epochs, with and without weight decay.
CHOICES = [(rate, decay, 50) for rate in (1e-4, 1e-3, 1e-2) for decay in (0.0, 1e-1)]
MOST_FOLDS = 5
COSINE = [(1e-4, 0.0, 30), (1e-3, 0.0, 30)]

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Featured:
    """Hold the features of a domain's images to draw from and of those to test on."""

    name: str
    classes: int
    pool: Rows
    pool_labels: Labels
    test: Rows
    test_labels: Labels

    def drawn(self, shots: int, seed: int) -> tuple[Rows, Labels]:
        """Draw `shots` images of every class."""
        order = np.random.default_rng([seed, shots]).permutation(len(self.pool))
        chosen = np.concatenate([order[self.pool_labels[order] == label][:shots] for label in range(self.classes)])
        return self.pool[chosen], self.pool_labels[chosen]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptRows:
    """Give features for stored outputs of the frozen stages."""

    rows: Rows

    def take(self, positions: NDArray[np.int64], draw: int) -> Rows:
        """Give the features at positions."""
        return self.rows[positions]

    def check(self) -> None:
        """Find nothing wrong."""


def read_features(data: Path, backbone: Backbone, domain: str) -> Featured:
    """Compute the features of a domain."""
    found = read_domain(data, domain, validation=10**6, test=10**6)
    pool = np.concatenate([found.pool.pixels, found.validation.pixels])
    return Featured(
        name=domain,
        classes=len(found.classes),
        pool=extract_features(backbone, SPEC, pool, device="cpu"),
        pool_labels=np.concatenate([found.pool.labels, found.validation.labels]),
        test=extract_features(backbone, SPEC, found.test.pixels, device="cpu"),
        test_labels=found.test.labels,
    )


def fitted(domain: Featured, backbone: Backbone, rows: Rows, labels: Labels, recipe: Hyperparameters) -> float:
    """Train a head as the package does; the last epoch counts, no other is chosen. Gives its test accuracy."""
    settings = TrainingSettings(seed=0, batch_norm="frozen", precision="fp32", device="cpu", metric="val_loss")
    classifier = new_classifier(backbone, domain.classes, seed=0)
    blank = np.zeros((len(labels), 1, 1, 3), dtype=np.uint8)
    samples = ArraySamples(pixels=blank, labels=labels, keys=np.arange(len(labels), dtype=np.uint64))
    kept = Activations(
        depth=NUM_STAGES,
        layout=Layout(shape=rows.shape[1:], channels_last=False),
        dtype="fp32",
        train=KeptRows(rows=rows),
        # The training images themselves: the least loss is that of the last epochs, and nothing is looked up.
        validation=KeptRows(rows=rows),
    )
    fine_tune(classifier, SPEC, samples, samples, recipe, settings, activations=kept)
    with torch.no_grad():
        found = classifier.head(torch.from_numpy(domain.test)).argmax(dim=1).numpy()
    return float((found == domain.test_labels).mean())


def accuracies(domain: Featured, backbone: Backbone, shots: int, seed: int) -> Iterator[tuple[str, float]]:
    """Give the test accuracy of every head, by name."""
    rows, labels = domain.drawn(shots, seed)

    def recipe(head: str, rate: float = 1e-3, decay: float = 0.0, epochs: int = 1) -> Hyperparameters:
        fields = {"head": head, "learning_rate": rate, "weight_decay": decay, "epochs": epochs}
        return Hyperparameters.model_validate({**fields, "freeze_depth": NUM_STAGES})

    yield "prototype", fitted(domain, backbone, rows, labels, recipe("prototype"))
    for rate, decay, epochs in COSINE:
        yield (
            f"cosine {rate:g} x {epochs}",
            fitted(domain, backbone, rows, labels, recipe("cosine", rate, decay, epochs)),
        )
    for rate, decay, epochs in LINEAR:
        name = f"linear {rate:g} x {epochs}, decay {decay:g}"
        yield name, fitted(domain, backbone, rows, labels, recipe("linear", rate, decay, epochs))
    choices = [recipe("linear", rate, decay, epochs) for rate, decay, epochs in CHOICES]
    chosen = chosen_by_folds(domain, backbone, rows, labels, choices)
    found = [fitted(domain, backbone, rows, labels, choice) for choice in chosen]
    yield "tuned linear", float(np.mean(found))
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(rows, labels)
        yield f"logistic C {strength:g}", float(model.score(domain.test, domain.test_labels))
    for strength in UNIT_STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(_units(rows), labels)
        yield f"logistic, unit features, C {strength:g}", float(model.score(_units(domain.test), domain.test_labels))


def chosen_by_folds(
    domain: Featured, backbone: Backbone, rows: Rows, labels: Labels, choices: list[Hyperparameters]
) -> list[Hyperparameters]:
    """Give the recipes of the highest mean accuracy over stratified folds of the training images; all without any."""
    folds = min(MOST_FOLDS, int(np.bincount(labels).min()))
    if folds < 2:
        return choices
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(rows, labels))
    scores = []
    for choice in choices:
        found = [
            fitted(
                replace(domain, test=rows[held], test_labels=labels[held]), backbone, rows[kept], labels[kept], choice
            )
            for kept, held in splits
        ]
        scores.append(round(float(np.mean(found)), 6))
    return [choice for choice, score in zip(choices, scores, strict=True) if score == max(scores)]


def _units(rows: Rows) -> Rows:
    units: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def means(found: dict[tuple[int, str], dict[str, list[float]]]) -> dict[tuple[int, str], dict[str, list[float]]]:
    """Average every head's accuracies over the domains, draw by draw."""
    alike: dict[int, list[dict[str, list[float]]]] = {}
    for (shots, _), heads in found.items():
        alike.setdefault(shots, []).append(heads)
    return {
        (shots, "mean"): {head: np.mean([heads[head] for heads in domains], axis=0).tolist() for head in domains[0]}
        for shots, domains in alike.items()
    }


def table(found: dict[tuple[int, str], dict[str, list[float]]]) -> Iterator[str]:
    """Write the lines of a table: every head's mean accuracy, and prototypes less the best of each kind."""
    kinds = {"linear by steps": "linear", "tuned linear": "tuned", "logistic": "logistic", "cosine": "cosine"}
    compared = " | ".join(f"best {kind} | prototype less it" for kind in kinds)
    yield f"| Images a class | Domain | prototype | {compared} |"
    yield "|---" * (3 + 2 * len(kinds)) + "|"
    for (shots, domain), heads in found.items():
        own = np.array(heads["prototype"])
        cells = []
        for prefix in kinds.values():
            best = max((name for name in heads if name.startswith(prefix)), key=lambda name: np.mean(heads[name]))
            gains = 100 * (own - np.array(heads[best]))
            half = 1.96 * gains.std(ddof=1) / math.sqrt(len(gains))
            cells += [f"{np.mean(heads[best]):.3f} ({best})", f"{gains.mean():+.1f} ± {half:.1f}"]
        yield f"| {shots} | {domain} | {own.mean():.3f} | {' | '.join(cells)} |"


def main() -> None:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backbone, _ = load_pretrained(str(arguments.weights), SPEC, seed=0)
    found: dict[tuple[int, str], dict[str, list[float]]] = {}
    for name in DOMAINS:
        domain = read_features(arguments.data, backbone, name)
        for shots in arguments.shots:
            heads = found.setdefault((shots, name), {})
            for seed in range(arguments.draws):
                drawn = dict(accuracies(domain, backbone, shots, seed))
                for head, accuracy in drawn.items():
                    heads.setdefault(head, []).append(accuracy)
                rounded = {head: round(accuracy, 4) for head, accuracy in drawn.items()}
                print(json.dumps({"domain": name, "shots": shots, "draw": seed, **rounded}), flush=True)
    print("\n".join(table(dict(sorted({**found, **means(found)}.items())))))


if __name__ == "__main__":
    main()
