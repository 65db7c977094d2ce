"""Measure what an epoch from scratch is said to cost on PACS, and whether trainings of equal cost take equally long.

    python tests/benchmarks/training/equal_cost.py DATA WEIGHTS [--depth D ...] [--source] [--images N] [--epochs N]
                                                   [--repeats N] [--tiny]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. A group's training on
images of photo, with its first D stages frozen, is the rival; with `--source` as many images of sketch are beside it.
The cost of an epoch from scratch is found N times as an arm finds it, then both are trained, one after the other, in
one process without a cluster. Depth 0 is tried too, where a run takes 1: what is found there is noise, but for
BatchNorm, whose statistics are learnt from scratch alone. Prints a JSON object for each depth.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from methods import SPEC
from pacs_images import ArraySamples, read_domain

from orchestrator.cluster.equal_cost import Rival, measure_epoch_cost
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.workers import Workbench
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Hyperparameters, PretrainedBackbone
from orchestrator.search.arms import affordable_epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--depth", type=int, nargs="+", default=[0, 3, 4, 6])
    parser.add_argument("--source", action="store_true")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--tiny", action="store_true", help="few images and epochs, to try the script")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.images, arguments.epochs, arguments.repeats = 40, 2, 1
    domain = read_domain(arguments.data, "photo", validation=100, test=1)
    samples = GroupSamples(
        group="photo",
        classes=domain.classes,
        train=domain.pool.drawn(arguments.images, 0),
        validation=domain.validation,
    )
    source = read_domain(arguments.data, "sketch", validation=1, test=1).pool if arguments.source else None
    for depth in arguments.depth:
        found = compare(samples, source, a_workbench(arguments.weights), depth, arguments.epochs, arguments.repeats)
        print(json.dumps({"depth": depth, "source": arguments.source, **found}), flush=True)


def a_workbench(weights: str) -> Workbench:
    backbone, digest = load_pretrained(weights, SPEC, seed=0)
    record = PretrainedBackbone(
        spec=SPEC,
        source=weights,
        weights=weights,
        digest=digest,
        num_stages=backbone.num_stages,
        feature_dim=backbone.feature_dim,
    )
    return Workbench(
        backbone=record, weights_uri=weights, seed=0, batch_norm="frozen", precision="fp32", metric="val_accuracy"
    )


def compare(
    samples: GroupSamples, source: ArraySamples | None, bench: Workbench, depth: int, epochs: int, repeats: int
) -> dict[str, object]:
    recipe = Hyperparameters(freeze_depth=depth, learning_rate=1e-3, epochs=epochs, batch_size=32, optimizer="adam")
    scratch = recipe.model_copy(update={"freeze_depth": 0})
    companion = None if source is None else Companion(samples=source.drawn(len(samples.train), 0))
    # What is alike is not tried: another batch makes the rival's recipe another one.
    tried = recipe.model_copy(update={"batch_size": 33}) if depth == 0 and companion is None else recipe
    rival = Rival(hyperparameters=tried, epochs=epochs, num_train=len(samples.train), companion=companion)
    costs, took = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        costs.append(measure_epoch_cost(scratch, samples, rival, bench, "cpu"))
        took.append(time.perf_counter() - started)
    affordable = affordable_epochs(epochs, float(np.median(costs)))
    train = partial(seconds_of, samples, bench)
    own, alone = (
        train(recipe, companion, from_scratch=False),
        train(scratch.model_copy(update={"epochs": affordable}), None, from_scratch=True),
    )
    return {
        "costs": [round(cost, 2) for cost in costs],
        "trying took": round(float(np.median(took)), 1),
        "epochs": [epochs, affordable],
        "seconds": [round(own, 1), round(alone, 1)],
        "scratch over rival": round(alone / own, 2),
    }


def seconds_of(
    samples: GroupSamples,
    bench: Workbench,
    recipe: Hyperparameters,
    companion: Companion | None,
    *,
    from_scratch: bool,
) -> float:
    classifier = bench.classifier(len(samples.classes), from_scratch=from_scratch)
    settings = bench.settings("cpu", from_scratch=from_scratch)
    found = fine_tune(classifier, SPEC, samples.train, samples.validation, recipe, settings, companion=companion)
    return found.seconds


if __name__ == "__main__":
    main()
