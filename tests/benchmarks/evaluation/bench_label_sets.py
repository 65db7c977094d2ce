"""Measure the memory that judging images of any number of labels takes against their number.

    python tests/benchmarks/evaluation/bench_label_sets.py [--images N ...] [--labels K] [--kin] [--whole]

Makes up catalogue rows with 997 sets of labels in turn, what a model predicted on them (a file on this machine's disk,
as the evaluation keeps it), a fifth as many validation images, and three baselines with their answers; then judges,
each number of images in a process of its own. With `--kin`, images share their `together` by fives. With `--whole` all
predictions are in memory at once. Prints a JSON object for each: seconds, megabytes as in `bench_memory.py`, the size
of a baseline's record, the mean average precision with its bound, and how far it is from that of ranks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bench_memory import KIN, RECIPE, SAMPLES, Peak

from orchestrator.data.multi_label import UNIT_SEPARATOR
from orchestrator.data.scratch import ScratchRows, scratch_rows
from orchestrator.evaluation.average_precision import mean_average_precision
from orchestrator.evaluation.judging import judge
from orchestrator.evaluation.label_answers import LabelAnswers
from orchestrator.evaluation.parts import PART_ROWS, PredictionParts, whole
from orchestrator.records import BaselineResult
from orchestrator.stages.predicted import tasks_of

SETS, NUM_SUBSETS = 997, 4


def sets_of(num_labels: int) -> np.ndarray:
    """Draw sets of labels [997, K], of which the first are frequent and the last rare."""
    return np.random.default_rng(0).random((SETS, num_labels)) < np.geomspace(0.5, 0.01, num_labels)


def some_rows(num_images: int, num_labels: int, *, has_kin: bool) -> pa.Table:
    """Make up catalogue rows: subsets and sets of labels in turn."""
    numbers = np.arange(num_images)
    texts = pa.array([UNIT_SEPARATOR.join(map(str, np.flatnonzero(has))) for has in sets_of(num_labels)])
    kin = pc.cast(pa.array(numbers // KIN), pa.string()) if has_kin else pa.array([""] * num_images)
    return pa.table(
        {
            "id": pc.cast(pa.array(numbers), pa.string()),
            "subset": pc.cast(pa.array(numbers % NUM_SUBSETS), pa.string()),
            "together": kin,
            "label": texts.take(pa.array(numbers % SETS)),
        }
    )


def predictions_of(rows: pa.Table, kept: ScratchRows, num_labels: int, seed: int) -> PredictionParts:
    """Write what a model may have predicted, and give it part by part."""
    generator, sets = np.random.default_rng(seed), sets_of(num_labels)
    for start in range(0, rows.num_rows, PART_ROWS):
        places = np.arange(start, min(start + PART_ROWS, rows.num_rows))
        logits = generator.normal(size=(len(places), num_labels)) + 3.0 * sets[places % SETS] - 2.0
        kept.put(places, (1 / (1 + np.exp(-logits))).astype(np.float32))
    labels = [str(number) for number in range(num_labels)]
    return tasks_of(rows, kept, [labels], is_multi_label=True)[0]


def a_baseline(name: str, predictions: PredictionParts) -> BaselineResult:
    """Keep answers of a baseline that is the model with some noise."""
    answers, seen = LabelAnswers(len(predictions), predictions.num_classes), 0
    generator = np.random.default_rng(len(name))
    for part in predictions.parts():
        noisy = 0.7 * part.probabilities + 0.3 * generator.random(part.probabilities.shape, dtype=np.float32)
        answers.add(np.arange(seen, seen + len(part)), noisy, part.label_sets)
        seen += len(part)
    fields = {"group": "low", "name": name, "hyperparameters": RECIPE, "seconds": 1.0, **answers.fields()}
    return BaselineResult.model_validate(fields)


def measure(num_images: int, num_labels: int, *, has_kin: bool, is_whole: bool) -> dict[str, object]:
    """Judge made-up predictions, and tell what that took."""
    labels = [str(number) for number in range(num_labels)]
    rows = some_rows(num_images, num_labels, has_kin=has_kin)
    others = some_rows(max(100, num_images // 5), num_labels, has_kin=has_kin)
    with (
        scratch_rows(rows.num_rows, num_labels, np.float32) as of_test,
        scratch_rows(others.num_rows, num_labels, np.float32) as of_validation,
    ):
        with Peak() as peak:
            predictions = predictions_of(rows, of_test, num_labels, 1)
            validation = predictions_of(others, of_validation, num_labels, 2)
            baselines = [a_baseline(name, predictions) for name in ("fixed_rule", "head_only", "from_scratch")]
            if is_whole:
                predictions, validation = whole(predictions), whole(validation)
            started = time.perf_counter()
            found = judge(
                "low", labels, predictions, baselines, validation=validation, separation=None,
                bootstrap_samples=SAMPLES, seed=0, predictions_path="", seconds=0.0, fingerprint="",
            )  # fmt: skip
            seconds = time.perf_counter() - started
        table = whole(predictions)
        ranked = mean_average_precision(table.probabilities, table.label_sets)
    scores = found.multi_label
    assert scores is not None and scores.mean_average_precision is not None and ranked is not None
    return {
        "images": num_images,
        "labels": num_labels,
        "kin": has_kin,
        "whole": is_whole,
        "seconds": round(seconds, 1),
        "rows_mb": round((rows.nbytes + others.nbytes) / 1e6, 1),
        "before_mb": round(peak.before / 1e6, 1),
        "added_mb": round((peak.most - peak.before) / 1e6, 1),
        "baseline_mb": round(len(baselines[0].to_json()) / 1e6, 2),
        "precision": round(scores.mean_average_precision, 5),
        "precision_error": scores.mean_average_precision_error,
        "from_ranks": scores.mean_average_precision - ranked,
    }


def main() -> None:
    """Measure each number of images in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--kin", action="store_true")
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    if len(arguments.images) == 1:
        found = measure(arguments.images[0], arguments.labels, has_kin=arguments.kin, is_whole=arguments.whole)
        print(json.dumps(found), flush=True)
        return
    options = [name for name in ("--kin", "--whole") if name in sys.argv]
    for num_images in arguments.images:
        command = [sys.executable, __file__, "--images", str(num_images), "--labels", str(arguments.labels)]
        subprocess.run([*command, *options], check=True)


if __name__ == "__main__":
    main()
