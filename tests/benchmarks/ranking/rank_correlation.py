"""Measure how well the scores of untrained features order backbones by their accuracy after fine-tuning.

    python tests/benchmarks/ranking/rank_correlation.py DATA WEIGHTS [--images 600] [--epochs 6]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS the two MobileNetV2 trunks. Seven candidates, from
pretrained to random, are scored on the training images of each of four domains and then fine-tuned on them at one
fixed recipe, in one process without a cluster. Prints what each candidate came to, and a JSON object for each score:
the mean over domains of its rank correlation with test accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from orchestrator.config import SplitFractions
from orchestrator.data.decoding import decode_image, resize_image
from orchestrator.data.identity import assign_split, sample_keys
from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.transferability import fisher_ratio, log_evidence, shrunk_h_score
from orchestrator.diversity.vendi import on_own_axes, unit_directions
from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.classifier import extract_features, new_classifier, predict_probabilities
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
SCORES = ("log_evidence", "h_score", "fisher_ratio")
IMAGE_SIZE = 96
FREEZE_DEPTH = 3
LEARNING_RATE = 1e-3
WIDTHS = {"0.35": "mobilenet_v2_w0.35.pt", "1.0": "mobilenet_v2_w1.0.pt"}
SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySamples:
    """Hold decoded samples in memory."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give the pixels at positions."""
        return self.pixels[positions]


def read_domain(data: Path, domain: str, most: int) -> dict[str, ArraySamples]:
    """Decode at most `most` training images of a domain and the held-out ones that go with them, by split."""
    shards = sorted(data.glob(f"{domain}-*.parquet"))
    if not shards:
        raise SystemExit(f"there are no shards {domain}-*.parquet in {data}")
    table = pa.concat_tables([pq.read_table(shard, columns=["image", "label", "path"]) for shard in shards])
    classes = sorted(set(table.column("label").to_pylist()))
    fractions = SplitFractions(val=0.15, test=0.35)
    # The shards are sorted by class, and half of a domain is for training.
    order = np.random.default_rng(SEED).permutation(table.num_rows)[: 2 * most]
    rows = table.take(pa.array(order)).to_pylist()
    splits = np.array([assign_split(row["path"], fractions, SEED) for row in rows])
    return {split: _decoded([rows[i] for i in np.flatnonzero(splits == split)], classes) for split in set(splits)}


def _decoded(rows: list[dict[str, object]], classes: list[str]) -> ArraySamples:
    return ArraySamples(
        pixels=np.stack([resize_image(decode_image(row["image"]), IMAGE_SIZE, "crop") for row in rows]),
        labels=np.array([classes.index(row["label"]) for row in rows], dtype=np.int64),
        keys=sample_keys([row["path"] for row in rows]),
    )


def candidates(weights: Path) -> Iterator[tuple[str, BackboneSpec, Backbone]]:
    """Give backbones from pretrained to random: both trunks, and the narrow one with its last stages made anew."""
    for width, file in WIDTHS.items():
        spec = spec_of(float(width))
        yield f"width {width}", spec, load_pretrained(str(weights / file), spec, seed=SEED)[0]
    spec = spec_of(0.35)
    for count in (1, 2, 3, 4):
        backbone, _ = load_pretrained(str(weights / WIDTHS["0.35"]), spec, seed=SEED)
        fresh = random_backbone(spec)
        for stage in range(backbone.num_stages - count, backbone.num_stages):
            backbone.stages[stage] = fresh.stages[stage]
        yield f"width 0.35, last {count} of 6 stages random", spec, backbone
    yield "width 0.35, random", spec, random_backbone(spec)


def spec_of(width: float) -> BackboneSpec:
    """Describe a MobileNetV2 of this width, on pixels from -1 to 1."""
    return BackboneSpec(
        name="mobilenet_v2", kwargs={"width_mult": width}, image_size=IMAGE_SIZE, resize="crop",
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip


def random_backbone(spec: BackboneSpec) -> Backbone:
    """Build a backbone that has learnt nothing."""
    with seeded(SEED):
        return create_backbone(spec.name, spec.kwargs, spec.image_size)


def scores_of(backbone: Backbone, spec: BackboneSpec, samples: ArraySamples) -> dict[str, float]:
    """Score the features of the training images."""
    directions = unit_directions(extract_features(backbone, spec, samples.pixels, device="cpu"))
    sums = FeatureSums.of(on_own_axes(directions), samples.labels.astype(str).tolist())
    return {
        "log_evidence": log_evidence(sums),
        "h_score": shrunk_h_score(sums, directions.shape[1]),
        "fisher_ratio": fisher_ratio(sums),
    }


def tuned_accuracy(backbone: Backbone, spec: BackboneSpec, domain: dict[str, ArraySamples], epochs: int) -> float:
    """Fine-tune the last stages at the fixed recipe, and give the accuracy of its best epoch on the test images."""
    settings = TrainingSettings(
        seed=SEED, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy"
    )  # fmt: skip
    recipe = Hyperparameters(
        freeze_depth=FREEZE_DEPTH, learning_rate=LEARNING_RATE, epochs=epochs, batch_size=32, optimizer="adam",
        weight_decay=0.0,
    )  # fmt: skip
    classifier = new_classifier(backbone, int(domain["train"].labels.max()) + 1, seed=SEED)
    fine_tune(classifier, spec, domain["train"], domain["val"], recipe, settings)
    predicted = predict_probabilities(classifier, spec, domain["test"].pixels, device="cpu").argmax(axis=1)
    return float((predicted == domain["test"].labels).mean())


def main() -> None:
    """Score, train, correlate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for name in DOMAINS:
        domain = read_domain(arguments.data, name, arguments.images)
        found[name] = []
        for title, spec, backbone in candidates(arguments.weights):
            scores = scores_of(backbone, spec, domain["train"])
            accuracy = tuned_accuracy(backbone, spec, domain, arguments.epochs)
            found[name].append({**scores, "accuracy": accuracy})
            shown = {key: round(value, 4) for key, value in found[name][-1].items()}
            print(f"{name}: {title}: {shown}", file=sys.stderr, flush=True)
    for score in SCORES:
        print(json.dumps(correlation(score, found)))


def correlation(score: str, found: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Correlate a score's order of the candidates with that of their accuracies, domain by domain."""
    pairs = {
        name: ([entry[score] for entry in entries], [entry["accuracy"] for entry in entries])
        for name, entries in found.items()
    }
    spearman = {name: float(spearmanr(*pair).statistic) for name, pair in pairs.items()}
    kendall = {name: float(kendalltau(*pair).statistic) for name, pair in pairs.items()}
    mean = round(float(np.mean(list(spearman.values()))), 3)
    return {
        "benchmark": f"rank_correlation_{score}", "ratio": mean, "aim": None, "ours": mean, "peer": None,
        "unit": "Spearman, mean over domains", "kendall": round(float(np.mean(list(kendall.values()))), 3),
        "spearman_by_domain": {name: round(value, 3) for name, value in spearman.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main()
