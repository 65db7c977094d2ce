"""Measure the memory that judging takes against the number of test images.

    python tests/benchmarks/evaluation/bench_memory.py [--images N ...] [--classes K] [--kin] [--whole]

Makes up catalogue rows, what a model predicted on them (a file on this machine's disk, as the evaluation keeps it), a
fifth as many validation images, and three baselines; then writes the table of predictions and judges, each number of
images in a process of its own. With `--kin`, images share their `together` by fives. With `--whole` all predictions are
in memory at once. Prints a JSON object for each: seconds, the bytes of the rows, and by how much the process' own
memory (RssAnon, which pages of files are no part of) was at most above what it was with the rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator import storage
from orchestrator.data.scratch import ScratchRows, scratch_rows
from orchestrator.evaluation.answers import pack
from orchestrator.evaluation.judging import judge
from orchestrator.evaluation.parts import PART_ROWS, PredictionParts, whole
from orchestrator.records import BaselineResult, Hyperparameters
from orchestrator.stages.predicted import tasks_of

NUM_SUBSETS, KIN, SAMPLES = 20, 5, 2000
RECIPE = Hyperparameters(freeze_depth=3, learning_rate=1e-3, epochs=1, batch_size=32, optimizer="adam", weight_decay=0)


def some_rows(num_images: int, num_classes: int, *, has_kin: bool) -> pa.Table:
    """Make up catalogue rows: subsets and classes in turn."""
    numbers = pa.array(np.arange(num_images))
    kin = pc.cast(pa.array(np.arange(num_images) // KIN), pa.string()) if has_kin else pa.array([""] * num_images)
    return pa.table(
        {
            "id": pc.cast(numbers, pa.string()),
            "subset": pc.cast(pa.array(np.arange(num_images) % NUM_SUBSETS), pa.string()),
            "together": kin,
            "label": pc.cast(pa.array(truth_of(num_images, num_classes)), pa.string()),
        }
    )


def truth_of(num_images: int, num_classes: int) -> np.ndarray:
    """Give the class indices of the rows [n]."""
    return np.arange(num_images) * 7 % num_classes


def predictions_of(rows: pa.Table, kept: ScratchRows, num_classes: int, seed: int) -> PredictionParts:
    """Write what a model may have predicted, right on some three images of four, and give it part by part."""
    generator, truth = np.random.default_rng(seed), truth_of(rows.num_rows, num_classes)
    for start in range(0, rows.num_rows, PART_ROWS):
        places = np.arange(start, min(start + PART_ROWS, rows.num_rows))
        logits = generator.normal(size=(len(places), num_classes)).astype(np.float32)
        logits[np.arange(len(places)), truth[places]] += 2.5
        odds = np.exp(logits)
        kept.put(places, odds / odds.sum(axis=1, keepdims=True))
    return tasks_of(rows, kept, [[str(number) for number in range(num_classes)]])[0]


def measure(num_images: int, num_classes: int, *, has_kin: bool, is_whole: bool) -> dict[str, object]:
    """Judge made-up predictions, and tell what that took."""
    classes = [str(number) for number in range(num_classes)]
    rows = some_rows(num_images, num_classes, has_kin=has_kin)
    others = some_rows(max(100, num_images // 5), num_classes, has_kin=has_kin)
    generator = np.random.default_rng(0)
    baselines = [
        BaselineResult(
            group="low",
            name=name,
            hyperparameters=RECIPE,
            seconds=1.0,
            correct=pack(generator.random(num_images) < 0.7),
        )
        for name in ("fixed_rule", "head_only", "from_scratch")
    ]
    with (
        scratch_rows(rows.num_rows, num_classes, np.float32) as of_test,
        scratch_rows(others.num_rows, num_classes, np.float32) as of_validation,
        TemporaryDirectory() as output,
        Peak() as peak,
    ):
        predictions = predictions_of(rows, of_test, num_classes, 1)
        validation = predictions_of(others, of_validation, num_classes, 2)
        if is_whole:
            predictions, validation = whole(predictions), whole(validation)
        started = time.perf_counter()
        storage.write_table_parts(f"{output}/table.parquet", (part.to_table() for part in predictions.parts()))
        judge(
            "low", classes, predictions, baselines, validation=validation, separation=None, bootstrap_samples=SAMPLES,
            seed=0, predictions_path="", seconds=0.0, fingerprint="",
        )  # fmt: skip
    return {
        "images": num_images,
        "classes": num_classes,
        "kin": has_kin,
        "whole": is_whole,
        "seconds": round(time.perf_counter() - started, 1),
        "rows_mb": round((rows.nbytes + others.nbytes) / 1e6, 1),
        "before_mb": round(peak.before / 1e6, 1),
        "added_mb": round((peak.most - peak.before) / 1e6, 1),
    }


class Peak:
    """Watch this process' own memory, a hundred times a second."""

    def __init__(self) -> None:
        self.before = self.most = own_bytes()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.01):
            self.most = max(self.most, own_bytes())


def own_bytes() -> int:
    """Give the resident memory of this process that is not of a file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def main() -> None:
    """Measure each number of images in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--kin", action="store_true")
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    if len(arguments.images) == 1:
        found = measure(arguments.images[0], arguments.classes, has_kin=arguments.kin, is_whole=arguments.whole)
        print(json.dumps(found), flush=True)
        return
    options = [name for name in ("--kin", "--whole") if name in sys.argv]
    for num_images in arguments.images:
        command = [sys.executable, __file__, "--images", str(num_images), "--classes", str(arguments.classes)]
        subprocess.run([*command, *options], check=True)


if __name__ == "__main__":
    main()
