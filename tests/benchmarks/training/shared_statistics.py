"""Measure what BatchNorm statistics of all ranks cost beside statistics of each: seconds of an epoch of two ranks.

    python tests/benchmarks/training/shared_statistics.py WEIGHTS [--turns N]

WEIGHTS is the trunk of MobileNetV2 0.35. Two processes of one thread train over gloo on the CPU, 320 made-up images of
96 px in batches of 32, in turn with `train.batch_norm` train and sync, three epochs a turn. Prints a JSON object for
each freeze depth: the median seconds of an epoch that is not a turn's first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from pacs_images import IMAGE_SIZE, ArraySamples

from orchestrator.config import BatchNormMode
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters

NUM_CLASSES = 7
DEPTHS = (3, 0)
MODES: tuple[BatchNormMode, ...] = ("train", "sync")
SPEC = BackboneSpec(
    name="mobilenet_v2", kwargs={"width_mult": 0.35}, image_size=IMAGE_SIZE, resize="crop",
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
)  # fmt: skip


def some_images(count: int) -> ArraySamples:
    """Make up images and classes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    labels = rng.integers(0, NUM_CLASSES, count)
    return ArraySamples(pixels=pixels, labels=labels, keys=np.arange(count, dtype=np.uint64))


def epoch_seconds(weights: str, depth: int, batch_norm: BatchNormMode) -> list[float]:
    """Train three epochs on this rank, and time those after the first."""
    settings = TrainingSettings(seed=0, batch_norm=batch_norm, precision="fp32", device="cpu", metric="val_accuracy")
    recipe = Hyperparameters(
        freeze_depth=depth, learning_rate=1e-3, epochs=3, batch_size=32, optimizer="adam", weight_decay=0.0
    )
    classifier = new_classifier(load_pretrained(weights, SPEC, seed=0)[0], NUM_CLASSES, seed=0)
    ends: list[float] = []
    fine_tune(
        classifier, SPEC, some_images(320), some_images(16), recipe, settings,
        on_epoch=lambda end: ends.append(time.perf_counter()),
    )  # fmt: skip
    return np.diff(ends).tolist()


def run_rank(rank: int, directory: str, weights: str, turns: int) -> None:
    """Time both on a rank; the first one prints."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    for depth in DEPTHS:
        found: dict[str, list[float]] = {mode: [] for mode in MODES}
        for _ in range(turns):
            for mode in MODES:
                found[mode] += epoch_seconds(weights, depth, mode)
        if rank == 0:
            medians = {mode: round(statistics.median(seconds), 2) for mode, seconds in found.items()}
            print(json.dumps({"freeze_depth": depth, **medians}), flush=True)
    dist.destroy_process_group()


def main() -> None:
    """Start two ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    with TemporaryDirectory() as directory:
        torch.multiprocessing.start_processes(
            run_rank, args=(directory, str(arguments.weights), arguments.turns), nprocs=2, start_method="spawn"
        )


if __name__ == "__main__":
    main()
