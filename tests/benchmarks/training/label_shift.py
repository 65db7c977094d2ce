"""Measure on PACS how often stated intervals hold class frequencies and corrected accuracy, and what correcting gains.

    python tests/benchmarks/training/label_shift.py DATA WEIGHTS [--draws N] [--images N] [--features FILE]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. A head is trained on the
frozen features of half of every domain's images. Of the other half each draw takes validation images at random, and of
what is left as many images as `--images`, in frequencies from a flat Dirichlet distribution: counts are multinomial,
images are drawn without replacement, and frequencies that ask for more images than there are of a class are drawn
again. Validation and images come from all domains, from one, or (`moved`) from all and from sketch. FILE keeps the
features for the next time. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from methods import SPEC
from numpy.typing import NDArray
from pacs_images import read_domain
from scipy.special import softmax

from orchestrator.evaluation.calibration import fit_temperature, scale
from orchestrator.evaluation.label_shift import Source, Target, estimate_shift
from orchestrator.evaluation.metrics import losses
from orchestrator.evaluation.mixtures import most_likely_shares
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import score
from orchestrator.finetune.classifier import extract_features
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import ShiftMethod

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
METHODS: tuple[ShiftMethod, ...] = ("confusion", "em")
SETTINGS = {"all domains": (DOMAINS, DOMAINS), **{name: ((name,), (name,)) for name in DOMAINS}}
SETTINGS["moved"] = (DOMAINS, ("sketch",))
VERSIONS = {"before": "before", "calibrated": "calibrated", "corrected": "corrected", "oracle": "known frequencies"}
RESAMPLES = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Hold the frozen features [n, d] of images and their classes [n]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(eq=False)
class Tally:
    """Sum up draws of one setting and method."""

    draws: int = 0
    all_held: int = 0
    class_held: list[float] = field(default_factory=list)
    accuracy_held: int = 0
    error: list[float] = field(default_factory=list)
    width: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add a score."""
        self.scores.setdefault(name, []).append(value)

    def mean(self, name: str) -> float:
        """Average a score."""
        return float(np.mean(self.scores[name]))


def read_parts(data: Path, weights: Path, kept: Path | None) -> tuple[dict[str, Part], dict[str, Part]]:
    """Give the training and the held-out half of each domain."""
    if kept is not None and kept.exists():
        arrays = dict(np.load(kept))
    else:
        backbone, _ = load_pretrained(str(weights), SPEC, seed=0)
        arrays = {}
        for name in DOMAINS:
            domain = read_domain(data, name, validation=10**6, test=10**6)
            for split, samples in (("train", domain.pool), ("val", domain.validation), ("test", domain.test)):
                arrays[f"{name}-{split}"] = extract_features(backbone, SPEC, samples.pixels, device="cpu")
                arrays[f"{name}-{split}-labels"] = samples.labels
        if kept is not None:
            np.savez(kept, **arrays)

    def part(name: str, *splits: str) -> Part:
        return Part(
            features=np.concatenate([arrays[f"{name}-{split}"] for split in splits]),
            labels=np.concatenate([arrays[f"{name}-{split}-labels"] for split in splits]),
        )

    return {name: part(name, "train") for name in DOMAINS}, {name: part(name, "val", "test") for name in DOMAINS}


def train_head(parts: Mapping[str, Part], epochs: int = 20) -> torch.nn.Linear:
    """Train a linear head on the features of all domains: Adam, rate 1e-3, batches of 32."""
    features = torch.from_numpy(np.concatenate([part.features for part in parts.values()]))
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts.values()]))
    torch.manual_seed(0)
    head = torch.nn.Linear(features.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(features[batch]), labels[batch]).backward()
            optimizer.step()
    return head


def predict(head: torch.nn.Linear, part: Part) -> Predictions:
    """Predict every image of a part."""
    with torch.no_grad():
        logits = head(torch.from_numpy(part.features)).numpy()
    count = len(part.labels)
    return Predictions(
        ids=[str(index) for index in range(count)],
        subsets=[""] * count,
        together=[""] * count,
        truth=part.labels,
        probabilities=softmax(logits, axis=1).astype(np.float32),
    )


def draws(
    validation: Predictions, images: Predictions, *, is_same: bool, size: int, num_validation: int, seed: int
) -> tuple[Predictions, Predictions, Predictions, NDArray[np.float64]]:
    """Draw validation images, images in drawn frequencies, and what the latter were drawn from."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(validation))
    pool = images.at(order[num_validation:]) if is_same else images
    held = np.bincount(pool.truth, minlength=7)
    while True:
        frequencies = rng.dirichlet(np.ones(7))
        counts = rng.multinomial(size, frequencies)
        if (counts <= held).all():
            break
    chosen = [
        rng.choice(np.flatnonzero(pool.truth == label), count, replace=False) for label, count in enumerate(counts)
    ]
    return validation.at(order[:num_validation]), pool.at(np.concatenate(chosen)), pool, frequencies


def judge(tallies: Mapping[str, Tally], validation: Predictions, images: Predictions, pool: Predictions,
          frequencies: NDArray[np.float64], trained: NDArray[np.float64], seed: int) -> None:  # fmt: skip
    """Estimate, correct and compare with the truth, by both methods and by what is commonly done instead."""
    source = Source.of(validation)
    for method in METHODS:
        tally = tallies[method]
        found = estimate_shift(source, Target.of(images), method, bootstrap_samples=RESAMPLES, seed=seed)
        low, high = found.intervals.T
        held = (low <= frequencies) & (frequencies <= high)
        corrected = source.calibration.apply(images.probabilities, found.frequencies)
        scores = score(corrected, images.truth, bootstrap_samples=500, seed=seed)
        right = source.calibration.apply(pool.probabilities, found.frequencies).argmax(axis=1) == pool.truth
        true_accuracy = sum(p * right[pool.truth == label].mean() for label, p in enumerate(frequencies))
        assert scores.accuracy is not None and scores.accuracy_interval is not None
        tally.draws += 1
        tally.all_held += bool(held.all())
        tally.class_held.append(float(held.mean()))
        tally.accuracy_held += bool(scores.accuracy_interval[0] <= true_accuracy <= scores.accuracy_interval[1])
        tally.error.append(float(np.abs(found.frequencies - frequencies).sum() / 2))
        tally.width.append(float((high - low).mean()))
        oracle = source.calibration.apply(images.probabilities, frequencies.clip(1e-6))
        calibrated = source.calibration.apply(images.probabilities)
        versions = {"before": images.probabilities, "calibrated": calibrated, "corrected": corrected, "oracle": oracle}
        for name, probabilities in versions.items():
            tally.add(name, float((probabilities.argmax(axis=1) == images.truth).mean()))
            tally.add(f"{name} loss", float(losses(probabilities, images.truth).mean()))
    temperature = fit_temperature(validation.probabilities, validation.truth) or 1.0
    plain = most_likely_shares(scale(images.probabilities, temperature) / trained, np.ones(len(images)),
                               0.5 * np.ones(7), trained)  # fmt: skip
    tallies["em"].add("plain error", float(np.abs(plain.shares - frequencies).sum() / 2))
    tallies["em"].add("none error", float(np.abs(source.calibration.prior - frequencies).sum() / 2))


def lines(name: str, tallies: Mapping[str, Tally]) -> Iterator[str]:
    """Write the lines of a table."""
    for method, tally in tallies.items():
        shown = " | ".join(f"{tally.mean(key):.3f}" for key in VERSIONS)
        loss = " | ".join(f"{tally.mean(f'{key} loss'):.3f}" for key in VERSIONS)
        held = f"{tally.all_held} | {100 * np.mean(tally.class_held):.0f}% | {tally.accuracy_held}"
        sizes = f"{np.mean(tally.error):.3f} | {np.mean(tally.width):.3f}"
        yield f"| {name} | {method} | {held} | {sizes} | {shown} | {loss} |"


def main() -> None:
    """Draw, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--images", type=int, default=400, help="in each draw")
    parser.add_argument("--validation", type=int, default=1500, help="most validation images; a third at most")
    parser.add_argument("--features", type=Path, help="where features are kept")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, held_out = read_parts(arguments.data, arguments.weights, arguments.features)
    head = train_head(train)
    trained = np.bincount(np.concatenate([part.labels for part in train.values()])).astype(np.float64)
    columns = [f"{what} {VERSIONS[name]}" for what in ("Accuracy", "Loss") for name in VERSIONS]
    print(f"| Images | Method | All held | Each held | Accuracy held | Error | Width | {' | '.join(columns)} |")
    print("|---" * 15 + "|")
    notes = []
    for name in arguments.only:
        started = time.perf_counter()
        validation, images = (
            predict(head, Part(features=np.concatenate([held_out[part].features for part in domains]),
                               labels=np.concatenate([held_out[part].labels for part in domains])))
            for domains in SETTINGS[name]
        )  # fmt: skip
        num_validation = min(arguments.validation, len(validation) // 3)
        tallies: dict[str, Tally] = {method: Tally() for method in METHODS}
        for seed in range(arguments.draws):
            drawn = draws(validation, images, is_same=name != "moved", size=arguments.images,
                          num_validation=num_validation, seed=seed)  # fmt: skip
            judge(tallies, *drawn, trained / trained.sum(), seed)
        print("\n".join(lines(name, tallies)), flush=True)
        notes.append(
            f"{name}: {num_validation} validation images; {arguments.draws} draws of {arguments.images}; error of the "
            f"source's frequencies {tallies['em'].mean('none error'):.3f}, of plain temperature with training's "
            f"frequencies {tallies['em'].mean('plain error'):.3f}; {time.perf_counter() - started:.0f} s"
        )
    print("\n".join(notes))


if __name__ == "__main__":
    main()
