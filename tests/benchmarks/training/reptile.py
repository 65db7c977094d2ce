"""Measure what a start learnt by Reptile over other domains gives a PACS domain with 1, 5 and 10 images a class.

    python tests/benchmarks/training/reptile.py DATA WEIGHTS RESULTS [--targets NAME ...] [--seeds N] [--steps N]
        [--rate R] [--outer-rate R] [--minutes M]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35 that everything begins
with, at 64 px in one process; statistics of BatchNorm stay as they are. Each target in turn is left out, and the other
three domains are the source:

- *ImageNet*: the weights as they are;
- *Reptile*: STEPS outer steps of three tasks, each ten images of every class of one source domain, eight inner steps of
  batches of ten by Adam at rate R, the outer rate falling from its own;
- *joint*: supervised on the three domains together, by Adam at rate R, as many images, in batches of 32.

Then 1, 5 and 10 images a class of the target are learnt by two recipes, the stages from 3 on and the head alone. The
best epoch on 150 images is kept and tested on 580, the same ones for every training. A seed says which images are
drawn, how networks start and how samples are ordered. Appends a JSON object for each start to RESULTS, where those that
are there already are not run again; none begins after M minutes. At the end, a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pacs_images import Domain, read_domain
from pretraining import DOMAINS, NUM_STAGES, SPEC, adam, joined

from orchestrator.config import ReptileConfig
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import new_classifier, predict_probabilities
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.reptile_training import SubsetSamples, train_reptile
from orchestrator.finetune.weights import load_pretrained

STARTS = ("ImageNet", "joint", "Reptile")
SHOTS = (1, 5, 10)
RECIPES = {"from stage 3": adam(20, 16, depth=3), "head alone": adam(60, 16, depth=NUM_STAGES, rate=1e-2)}
TASKS, INNER_STEPS, BATCH = 3, 8, 10


def settings(seed: int) -> TrainingSettings:
    """Give the settings of all trainings: the weights' statistics of BatchNorm stay."""
    return TrainingSettings(seed=seed, batch_norm="frozen", precision="fp32", device="cpu", metric="val_accuracy")


def subset_samples(domains: list[Domain], split: str) -> SubsetSamples:
    """Put a split of domains together, each a subset."""
    parts = [getattr(domain, split) for domain in domains]
    return SubsetSamples(samples=joined(parts), subsets=np.repeat(np.arange(len(parts)), [len(part) for part in parts]))


def begin(start: str, sources: list[Domain], options: argparse.Namespace, seed: int) -> tuple[Backbone, dict[str, Any]]:
    """Make the backbone of a start; say how it went."""
    backbone, _ = load_pretrained(str(options.weights), SPEC, seed=seed)
    train, held_out = (subset_samples(sources, split) for split in ("pool", "validation"))
    if start == "Reptile":
        config = ReptileConfig(
            steps=options.steps,
            outer_learning_rate=options.outer_rate,
            tasks_per_step=TASKS,
            shots=10,
            inner_steps=INNER_STEPS,
            inner_learning_rate=options.rate,
            batch_size=BATCH,
            episodes=30,
        )
        history = train_reptile(backbone, SPEC, train, held_out, config, settings(seed)).history
        first, last = history[0], history[-1]
        return backbone, {"before": first.accuracy, "after": last.accuracy, "loss": last.last_loss}
    if start == "joint":
        images = options.steps * TASKS * INNER_STEPS * BATCH
        samples = joined([domain.pool for domain in sources])
        epochs = max(1, round(images / len(samples)))
        classifier = new_classifier(backbone, len(sources[0].classes), seed=seed)
        judges = joined([domain.validation.drawn(50, 0) for domain in sources])
        recipe = adam(epochs, 32, rate=options.rate)
        found = fine_tune(classifier, SPEC, samples, judges, recipe, settings(seed))
        return classifier.backbone, {"after": found.history[-1].val_accuracy, "loss": found.history[-1].train_loss}
    return backbone, {}


def tune(target: Domain, backbone: Backbone, shots: int, seed: int) -> dict[str, float]:
    """Fine-tune on a few images a class by each recipe; give the accuracies on test images."""
    found = {}
    for name, recipe in RECIPES.items():
        classifier = new_classifier(backbone, len(target.classes), seed=seed)
        train = target.pool.drawn_per_class(shots, seed)
        fine_tune(classifier, SPEC, train, target.validation, recipe, settings(seed))
        told = predict_probabilities(classifier, SPEC, target.test.pixels, device="cpu").argmax(axis=1)
        found[f"{name}, {shots}"] = round(float((told == target.test.labels).mean()), 4)
    return found


def run(start: str, domains: dict[str, Domain], target: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Make a start and fine-tune from it."""
    started = time.perf_counter()
    backbone, told = begin(start, [domains[name] for name in DOMAINS if name != target], options, seed)
    seconds = round(time.perf_counter() - started, 1)
    accuracies = {key: value for shots in SHOTS for key, value in tune(domains[target], backbone, shots, seed).items()}
    return {"target": target, "start": start, "seed": seed, "seconds": seconds, **told, **accuracies}


def table(results: list[dict[str, Any]]) -> str:
    """Write the means over seeds, and the gain over ImageNet's weights in points with its least and most."""
    keys = [f"{name}, {shots}" for name in RECIPES for shots in SHOTS]
    lines = [f"| Target | Start | {' | '.join(keys)} | seconds |", "|---" * (len(keys) + 3) + "|"]
    plain = {(found["target"], found["seed"]): found for found in results if found["start"] == STARTS[0]}
    for target in sorted({found["target"] for found in results}):
        for start in STARTS:
            rows = [found for found in results if (found["target"], found["start"]) == (target, start)]
            if not rows:
                continue
            cells = []
            for key in keys:
                gains = [100 * (found[key] - plain[target, found["seed"]][key]) for found in rows]
                gain = f", {statistics.mean(gains):+.1f} [{min(gains):.1f}, {max(gains):.1f}]"
                cells.append(f"{statistics.mean(found[key] for found in rows):.3f}{gain if start != STARTS[0] else ''}")
            seconds = statistics.mean(found["seconds"] for found in rows)
            lines.append(f"| {target} | {start} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--targets", nargs="+", choices=DOMAINS, default=["photo"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--outer-rate", type=float, default=0.3)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = [json.loads(line) for line in lines]
    known = {(found["target"], found["start"], found["seed"]) for found in done}
    domains = {name: read_domain(options.data, name, validation=150, test=580, image_size=64) for name in DOMAINS}
    for seed in range(options.seeds):
        for target in options.targets:
            for start in STARTS:
                if (target, start, seed) in known or time.monotonic() - started > 60 * options.minutes:
                    continue
                done.append(run(start, domains, target, seed, options))
                with options.results.open("a") as stream:
                    print(json.dumps(done[-1]), file=stream)
                print(json.dumps(done[-1]), file=sys.stderr, flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
