"""Measure what a sketch of long features costs, saves and leaves open, beside exact sums of the same images.

    python tests/benchmarks/profile/sketch_error.py DATA WEIGHTS [--features FILE]

DATA holds the shards of PACS, WEIGHTS the trunks of MobileNetV2 1.0 and 0.35, of 1,280 features each at 96 px. Features
of 1,536 and 2,048 dimensions are those of the first joined by some of the second's. They are summed up as the profile
does: block by block, and merged in order. FILE keeps the features for the next time. Prints a table in Markdown: bytes
that are held, seconds of one process to add up and to measure, the exact Vendi score and the sketch's bounds of it, and
H-score, LogME and Fisher ratio, the exact one first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.data.decoding import decode_image, resize_image
from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.sketch import SKETCH_SIZE, SketchedSums
from orchestrator.diversity.transferability import fisher_ratio, h_score, log_evidence
from orchestrator.diversity.vendi import unit_directions, vendi_score
from orchestrator.finetune.classifier import extract_features
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec

DIMENSIONS = (1280, 1536, 2048)
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
WIDTHS = {"1.0": "mobilenet_v2_w1.0.pt", "0.35": "mobilenet_v2_w0.35.pt"}
BLOCK = 512

Features = NDArray[np.float32]
Labels = list[str]
Sums = TypeVar("Sums", FeatureSums, SketchedSums)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the PACS shards")
    parser.add_argument("weights", type=Path, help="directory of the two trunks")
    parser.add_argument("--features", type=Path, help="file that keeps the features")
    arguments = parser.parse_args()
    features, labels, domains = _read(arguments.data, arguments.weights, arguments.features)
    print(
        "| Images | Dimensions | Held: exact, sketch | Adding up | Measuring | Vendi score | Bounds "
        "| H-score | LogME | Fisher ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, chosen in _parts(domains):
        for dimensions in DIMENSIONS:
            rows = features[chosen][:, :dimensions]
            print(_line(name, rows, [labels[place] for place in chosen]), flush=True)


def _parts(domains: NDArray[np.str_]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    order = np.random.default_rng(0).permutation(len(domains))
    for name in DOMAINS:
        yield name, order[domains[order] == name]
    yield "all", order


def _line(name: str, rows: Features, labels: Labels) -> str:
    exact, exact_s = _added(FeatureSums, rows, labels)
    sketch, sketch_s = _added(SketchedSums, rows, labels)
    started = time.perf_counter()
    score = vendi_score(exact.outer / exact.num_images)
    measured = _scores(exact)
    middle = time.perf_counter()
    low, high = sketch.vendi_bounds()
    sketched = _scores(sketch.on_own_axes())
    seconds = middle - started, time.perf_counter() - middle
    width = rows.shape[1] + 1
    held = [8 * width * count / 2**20 for count in (width, SKETCH_SIZE)]
    shown = [f"{one:.4g}, {other:.4g}" for one, other in zip(measured, sketched, strict=True)]
    bounds = f"{low:.2f} to {high:.2f} (-{100 * (1 - low / score):.1f}%, +{100 * (high / score - 1):.1f}%)"
    cells = [
        f"{name}, {len(rows):,}",
        f"{rows.shape[1]:,}",
        f"{held[0]:.1f}, {held[1]:.1f} MiB",
        f"{exact_s:.2f}, {sketch_s:.2f} s",
        f"{seconds[0]:.2f}, {seconds[1]:.2f} s",
        f"{score:.2f}",
        f"{bounds}, lost {100 * sketch.lost / len(rows):.3f}%",
        *shown,
    ]
    return "| " + " | ".join(cells) + " |"


def _added(kind: type[Sums], rows: Features, labels: Labels) -> tuple[Sums, float]:
    started = time.perf_counter()
    parts = [
        kind.of(unit_directions(rows[start : start + BLOCK]), labels[start : start + BLOCK])
        for start in range(0, len(rows), BLOCK)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total, time.perf_counter() - started


def _scores(sums: FeatureSums) -> list[float]:
    return [score(sums) for score in (h_score, log_evidence, fisher_ratio)]


def _read(data: Path, weights: Path, kept: Path | None) -> tuple[Features, Labels, NDArray[np.str_]]:
    if kept is None or not kept.exists():
        found = _extracted(data, weights)
        if kept is None:
            return found[0], found[1].tolist(), found[2]
        np.savez(kept, features=found[0], labels=found[1], domains=found[2])
    with np.load(kept) as arrays:
        return arrays["features"], arrays["labels"].tolist(), arrays["domains"]


def _extracted(data: Path, weights: Path) -> tuple[Features, NDArray[np.str_], NDArray[np.str_]]:
    features, labels, domains = [], [], []
    for domain in DOMAINS:
        for shard in sorted(data.glob(f"{domain}-*.parquet")):
            table = pq.read_table(shard, columns=["image", "label"])
            images = table.column("image").to_pylist()
            pixels = np.stack([resize_image(decode_image(image), 96, "crop") for image in images])
            features.append(np.hstack([_features(weights, width, pixels) for width in WIDTHS]))
            labels += table.column("label").to_pylist()
            domains += [domain] * table.num_rows
    return np.concatenate(features), np.asarray(labels), np.asarray(domains)


def _features(weights: Path, width: str, pixels: NDArray[np.uint8]) -> Features:
    spec = BackboneSpec(
        name="mobilenet_v2",
        kwargs={"width_mult": float(width)},
        image_size=96,
        resize="crop",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    backbone, _ = load_pretrained(str(weights / WIDTHS[width]), spec, seed=0)
    return extract_features(backbone, spec, pixels, device="cpu", batch_size=32)


if __name__ == "__main__":
    main()
