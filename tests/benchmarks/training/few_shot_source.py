"""Measure on PACS what prototypes gain from a source, by its weight and by the target's images a class.

    python tests/benchmarks/training/few_shot_source.py DATA WEIGHTS [--draws N] [--shots K ...] [--weights W ...]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. Each domain in turn is the
target: N draws of K images of every class from two thirds of it, tested on the other third. The other three domains are
the source, 500 images of each, drawn anew with every draw. Every stage is frozen, so that prototypes are all there is:
each weight's are found on the same draws, as the package finds them. Prints tables in Markdown: test accuracies of the
target alone, and in points what each weight adds, with 95% intervals over draws.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from few_shot import DOMAINS, Featured, Labels, Rows, read_features
from methods import SPEC
from torch import nn

from orchestrator.finetune.prototypes import LabelledFeatures, find_prototypes
from orchestrator.finetune.weights import load_pretrained

PER_DOMAIN = 500
Drawn = tuple[Rows, Labels]


def drawn_source(domains: Sequence[Featured], target: str, seed: int) -> Drawn:
    """Draw the images of the other domains."""
    rows, labels = [], []
    for domain in domains:
        if domain.name != target:
            order = np.random.default_rng(seed).permutation(len(domain.pool))[:PER_DOMAIN]
            rows.append(domain.pool[order])
            labels.append(domain.pool_labels[order])
    return np.concatenate(rows), np.concatenate(labels)


def accuracy(domain: Featured, target: Drawn, source: Drawn, weight: float) -> float:
    """Give the test accuracy of prototypes of the target and of the source by its weight."""
    parts = [LabelledFeatures(rows=torch.from_numpy(target[0]), labels=torch.from_numpy(target[1]))]
    if weight > 0:
        each = weight * len(target[1]) / len(source[1])
        rows, labels = map(torch.from_numpy, source)
        parts.append(LabelledFeatures(rows=rows, labels=labels, weight=each, is_target=False))
    head = nn.Linear(target[0].shape[1], domain.classes)
    find_prototypes(lambda: parts, domain.classes, head.in_features, device="cpu", linear=True).write_to(head)
    with torch.no_grad():
        found = head(torch.from_numpy(domain.test)).argmax(dim=1).numpy()
    return float((found == domain.test_labels).mean())


def table(found: dict[str, dict[float, list[float]]], weights: Sequence[float]) -> Iterator[str]:
    """Write what was found with one number of images a class: by domain, and over all of them."""
    yield f"| Target | target alone | {' | '.join(f'weight {weight:g}' for weight in weights)} |"
    yield "|---" * (len(weights) + 2) + "|"
    means = {weight: np.mean([domain[weight] for domain in found.values()], axis=0) for weight in (0.0, *weights)}
    for name, domain in [*found.items(), ("mean", means)]:
        alone = np.array(domain[0.0])
        gains = [100 * (np.array(domain[weight]) - alone) for weight in weights]
        cells = [f"{gain.mean():+.1f} ± {1.96 * gain.std(ddof=1) / math.sqrt(len(gain)):.1f}" for gain in gains]
        yield f"| {name} | {alone.mean():.3f} | {' | '.join(cells)} |"


def main() -> None:
    """Find prototypes, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights_file", metavar="weights", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.1, 0.3, 1.0, 3.0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backbone, _ = load_pretrained(str(arguments.weights_file), SPEC, seed=0)
    domains = [read_features(arguments.data, backbone, name) for name in DOMAINS]
    for shots in arguments.shots:
        found: dict[str, dict[float, list[float]]] = {}
        for domain in domains:
            by_weight = found.setdefault(domain.name, {})
            for seed in range(arguments.draws):
                target, source = domain.drawn(shots, seed), drawn_source(domains, domain.name, seed)
                for weight in (0.0, *arguments.weights):
                    by_weight.setdefault(weight, []).append(accuracy(domain, target, source, weight))
        print(f"\n{shots} images a class\n", *table(found, arguments.weights), sep="\n", flush=True)


if __name__ == "__main__":
    main()
