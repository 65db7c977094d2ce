"""Measure the memory that comparisons of stored predictions take against the number of test images.

    python tests/benchmarks/evaluation/bench_comparisons.py [--images N ...] [--classes K] [--kin] [--whole]

Writes tables of predictions beside three baselines for two groups of as many images, as the evaluation does, then
compares as the report does (pooled over groups, and by subset) and as verdicts on transfer do (every subset with three
arms), each number of images in a process of its own. With `--kin`, images share their `together` by fives. With
`--whole` each table is read whole, as predictions with their names, before anything is compared. Prints a JSON object
for each: seconds, and by how much the process' own memory was at most above what it was before.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from bench_memory import SAMPLES, Peak, predictions_of, some_rows

from orchestrator import storage
from orchestrator.data.scratch import scratch_rows
from orchestrator.evaluation.answered_images import AnsweredImages, add_up_by_subset, right_by_subset
from orchestrator.evaluation.comparisons import pool
from orchestrator.evaluation.gains import subset_gains
from orchestrator.evaluation.paired_answers import add_up
from orchestrator.evaluation.predictions import PROBABILITIES, Predictions
from orchestrator.evaluation.transfer import compare_on_split

BASELINES = ("fixed_rule", "head_only", "from_scratch")


def write(uri: str, num_images: int, num_classes: int, seed: int, *, has_kin: bool) -> None:
    """Write what a model and its baselines may have predicted."""
    generator, rows = np.random.default_rng(seed), some_rows(num_images, num_classes, has_kin=has_kin)
    with scratch_rows(num_images, num_classes, np.float32) as kept:
        predictions = predictions_of(rows, kept, num_classes, seed)
        beside = predictions.with_baselines({name: generator.random(num_images) < 0.7 for name in BASELINES})
        storage.write_table_parts(uri, (part.to_table() for part in beside.parts()))


def read(uri: str, *, is_whole: bool) -> Iterator[AnsweredImages]:
    """Read part by part which images were right, or all predictions at once."""
    if is_whole:
        predictions = Predictions.from_table(storage.read_table(uri))
        yield AnsweredImages(
            ids=pa.chunked_array([predictions.ids]),
            subsets=pa.chunked_array([predictions.subsets]),
            together=pa.chunked_array([predictions.together]),
            correct=predictions.correct,
            baselines=predictions.baselines,
        )
        return
    for part in storage.read_table_parts(uri, without=[PROBABILITIES]):
        yield AnsweredImages.from_table(part)


def report(uris: list[str], *, is_whole: bool) -> None:
    """Compare as the report does."""
    answers = []
    for uri in uris:
        found = add_up_by_subset(read(uri, is_whole=is_whole))
        list(subset_gains(found, "head_only", bootstrap_samples=SAMPLES, seed=0))
        answers.append(add_up(found.values()))
    pool(answers, bootstrap_samples=SAMPLES, seed=0)


def verdicts(uri: str, together: pa.ChunkedArray, num_subsets: int, *, is_whole: bool) -> None:
    """Compare every subset with three arms, of which it is known which images they get right."""
    generator = np.random.default_rng(0)
    right = right_by_subset(read(uri, is_whole=is_whole))
    for subset, correct in right.items():
        arms = {name: generator.random(len(correct)) < 0.7 for name in BASELINES}
        kin = together.take(pa.array(np.arange(len(correct)) * num_subsets + int(subset)))
        compare_on_split(correct, arms, kin, bootstrap_samples=SAMPLES, seed=0)


def measure(num_images: int, num_classes: int, *, has_kin: bool, is_whole: bool) -> dict[str, object]:
    """Compare made-up predictions, and tell what that took."""
    found: dict[str, object] = {"images": num_images, "classes": num_classes, "kin": has_kin, "whole": is_whole}
    with TemporaryDirectory() as folder:
        uris = [f"{folder}/{group}.parquet" for group in ("low", "high")]
        for seed, uri in enumerate(uris):
            write(uri, num_images // 2, num_classes, seed, has_kin=has_kin)
        rows = some_rows(num_images // 2, num_classes, has_kin=has_kin)
        num_subsets = len(rows.column("subset").unique())
        steps = {
            "report": lambda: report(uris, is_whole=is_whole),
            "verdicts": lambda: verdicts(uris[0], rows.column("together"), num_subsets, is_whole=is_whole),
        }
        for name, step in steps.items():
            gc.collect()
            pa.default_memory_pool().release_unused()
            with Peak() as peak:
                started = time.perf_counter()
                step()
                found[f"{name}_seconds"] = round(time.perf_counter() - started, 1)
            found[f"{name}_added_mb"] = round((peak.most - peak.before) / 1e6, 1)
    return found


def main() -> None:
    """Measure each number of images in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000, 4_000_000])
    parser.add_argument("--classes", type=int, default=7)
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
