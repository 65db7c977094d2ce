"""Measure what pretraining on other domains gives a PACS domain of ten images a class, at equal optimizer steps.

    python tests/benchmarks/training/pretraining.py DATA RESULTS [--target NAME] [--seeds N ...] [--objectives NAME ...]
        [--images N] [--epochs N] [--batch-size N] [--minutes M]

DATA holds the shards `<domain>-*.parquet` of PACS. MobileNetV2 0.35 starts from nothing at 64 px and learns from IMAGES
images of the three domains that are not the target, over EPOCHS epochs in batches of N: their labels (Adam at 1e-3,
along a cosine), these together with those of the target's ten images a class (a fifth of every batch, which come in
addition; weight 1), the images alone (SimSiam with the defaults, 512 wide), or nothing. Then all of it, and the head
alone, are trained on the same ten images a class of the target, alike for each. The best epoch on 150 images is kept
and tested on 580. A seed says which images are drawn, how networks start and how samples are ordered. Appends a JSON
object for each pretraining to RESULTS, where those that are there already are not run again; none begins after M
minutes. At the end, a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pacs_images import ArraySamples, Domain, read_domain

from orchestrator.config import SimSiamConfig
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import new_classifier, predict_probabilities
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.simsiam import new_simsiam
from orchestrator.finetune.simsiam_training import train_simsiam
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
OBJECTIVES = ("none", "supervised", "simsiam", "with_target")
TARGET_SHARE = 0.2
NUM_STAGES = 6
SPEC = BackboneSpec(
    name="mobilenet_v2", kwargs={"width_mult": 0.35}, image_size=64, resize="crop",
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
)  # fmt: skip


def joined(parts: list[ArraySamples]) -> ArraySamples:
    """Put samples one after the other."""
    return ArraySamples(
        pixels=np.concatenate([part.pixels for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        keys=np.concatenate([part.keys for part in parts]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Hold the target and the domains that are its source."""

    target: Domain
    sources: tuple[Domain, ...]

    def source(self, images: int, seed: int) -> ArraySamples:
        """Draw images, as many of each source domain."""
        return joined([domain.pool.drawn(images // len(self.sources), seed) for domain in self.sources])

    def few(self, seed: int) -> ArraySamples:
        """Draw ten images of every class of the target."""
        return self.target.pool.drawn_per_class(10, seed)

    def source_validation(self) -> ArraySamples:
        """Give the source images that judge the supervised pretraining."""
        return joined([domain.validation.drawn(50, 0) for domain in self.sources])


def read_task(data: Path, target: str) -> Task:
    """Decode all domains."""
    read = {name: read_domain(data, name, validation=150, test=580, image_size=64) for name in DOMAINS}
    return Task(target=read[target], sources=tuple(read[name] for name in DOMAINS if name != target))


def settings(seed: int) -> TrainingSettings:
    """Give the settings of all trainings."""
    return TrainingSettings(seed=seed, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy")


def adam(epochs: int, batch_size: int, *, depth: int = 0, rate: float = 1e-3) -> Hyperparameters:
    """Give the recipe of every training with labels.

    The rate falls to 0: running statistics lag behind weights that still move, and a new network fails for it.
    """
    return Hyperparameters(
        freeze_depth=depth,
        learning_rate=rate,
        epochs=epochs,
        batch_size=batch_size,
        optimizer="adam",
        weight_decay=0.0,
        schedule="cosine",
    )


# All of it, and the head alone, whose features are computed once.
RECIPES = {"full": adam(30, 32), "head": adam(100, 32, depth=NUM_STAGES, rate=1e-2)}


def pretrain(task: Task, objective: str, seed: int, options: argparse.Namespace) -> tuple[Backbone, dict[str, Any]]:
    """Pretrain from nothing; give the backbone and how it went."""
    backbone, _ = load_pretrained("none", SPEC, seed=seed)
    source, epochs, batch_size = task.source(options.images, seed), options.epochs, options.batch_size
    if objective in ("supervised", "with_target"):
        classifier = new_classifier(backbone, len(task.target.classes), seed=seed)
        companion = None
        if objective == "with_target":
            companion = Companion(samples=task.few(seed), batch_share=TARGET_SHARE)
        judge, recipe = task.source_validation(), adam(epochs, batch_size)
        found = fine_tune(classifier, SPEC, source, judge, recipe, settings(seed), companion=companion)
        return classifier.backbone, {"loss": found.history[-1].train_loss, "accuracy": found.history[-1].val_accuracy}
    if objective == "simsiam":
        config = SimSiamConfig(epochs=epochs, batch_size=batch_size, width=512)
        model = new_simsiam(backbone, config, seed=seed)
        last = train_simsiam(model, SPEC, source, config, settings(seed)).history[-1]
        return model.backbone, {"loss": last.loss, "spread": last.spread}
    return backbone, {}


def tune(task: Task, backbone: Backbone, recipe: Hyperparameters, seed: int) -> float:
    """Fine-tune on ten images a class of the target, and give the accuracy on its test images."""
    classifier = new_classifier(backbone, len(task.target.classes), seed=seed)
    fine_tune(classifier, SPEC, task.few(seed), task.target.validation, recipe, settings(seed))
    found = predict_probabilities(classifier, SPEC, task.target.test.pixels, device="cpu").argmax(axis=1)
    return float((found == task.target.test.labels).mean())


def run(task: Task, objective: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Pretrain and fine-tune once."""
    started = time.perf_counter()
    backbone, found = pretrain(task, objective, seed, options)
    seconds = time.perf_counter() - started
    accuracies = {name: tune(task, backbone, recipe, seed) for name, recipe in RECIPES.items()}
    return {
        "target": options.target,
        "objective": objective,
        "seed": seed,
        "images": options.images,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "seconds": round(seconds, 1),
        **{key: round(value, 4) for key, value in {**found, **accuracies}.items()},
    }


def table(results: list[dict[str, Any]]) -> str:
    """Write the means over seeds, and the gain over no pretraining with its least and most."""
    lines = ["| Pretraining | all of it fine-tuned | head alone | seconds |", "|---|---|---|---|"]
    plain = {found["seed"]: found for found in results if found["objective"] == "none"}
    for objective in OBJECTIVES:
        rows = [found for found in results if found["objective"] == objective and found["seed"] in plain]
        if not rows:
            continue
        cells = [objective]
        for key in ("full", "head"):
            gains = [100 * (found[key] - plain[found["seed"]][key]) for found in rows]
            gain = (
                f", {statistics.mean(gains):+.1f} [{min(gains):.1f}, {max(gains):.1f}]" if objective != "none" else ""
            )
            cells.append(f"{statistics.mean(found[key] for found in rows):.3f}{gain}")
        cells.append(f"{statistics.mean(found['seconds'] for found in rows):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--target", default="photo", choices=DOMAINS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES, metavar="NAME")
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = [json.loads(line) for line in lines]
    known = {(found["objective"], found["seed"]) for found in done}
    task = read_task(options.data, options.target)
    for seed in options.seeds:
        for objective in options.objectives:
            if (objective, seed) in known or time.monotonic() - started > 60 * options.minutes:
                continue
            done.append(run(task, objective, seed, options))
            with options.results.open("a") as stream:
                print(json.dumps(done[-1]), file=stream)
            print(json.dumps(done[-1]), file=sys.stderr, flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
