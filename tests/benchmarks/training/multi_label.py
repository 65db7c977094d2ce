"""Measure training on label sets by binary cross-entropy on PACS: the class and the domain of a picture as its labels.

    python tests/benchmarks/training/multi_label.py DATA WEIGHTS [--seeds N] [--images N] [--epochs N]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. A picture has two of
eleven labels, and the network is not told so. Beside it stands a network with a softmax for each of the two, which
knows. Both are trained on the same pictures for the same epochs, in one process without a cluster; the test pictures
are the same for all seeds. Prints a JSON object for each training, then a table in Markdown: how often the most
probable class and domain are right, and the scores of label sets with their intervals, at 0.5 and at thresholds fitted
on validation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from methods import SPEC
from numpy.typing import NDArray
from pacs_images import ArraySamples
from two_tasks import RECIPE, Pictures, read_pictures, train

from orchestrator.evaluation.multi_label import fit_thresholds, score_label_sets
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Hyperparameters, LabelSetScores, MultiLabelScores


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Hold probabilities [n, K] of validation and of test pictures, and what training took."""

    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    seconds: float


def indicators(labels: NDArray[np.int64], class_counts: tuple[int, int]) -> NDArray[np.float32]:
    """Turn class and domain [n, 2] into indicators [n, K] of both."""
    return np.concatenate(
        [np.eye(count, dtype=np.float32)[labels[:, k]] for k, count in enumerate(class_counts)], axis=1
    )


def by_sigmoids(backbone: Backbone, pictures: Pictures, *, images: int, epochs: int, seed: int) -> Outcome:
    """Train on label sets."""
    drawn = pictures.train(images, seed)
    parts = [
        ArraySamples(pixels=part.pixels, labels=indicators(part.labels, pictures.class_counts), keys=part.keys)
        for part in (drawn, pictures.validation)
    ]
    recipe = Hyperparameters.model_validate({**RECIPE, "epochs": epochs, "loss": "binary_cross_entropy"})
    settings = TrainingSettings(seed=seed, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy")
    classifier = new_classifier(backbone, sum(pictures.class_counts), seed=seed)
    started = time.perf_counter()
    fine_tune(classifier, SPEC, *parts, recipe, settings)
    return _outcome(classifier, pictures, time.perf_counter() - started)


def by_softmaxes(backbone: Backbone, pictures: Pictures, *, images: int, epochs: int, seed: int) -> Outcome:
    """Train a head for the class and one for the domain."""
    drawn = pictures.train(images, seed)
    trial = train(backbone, drawn, pictures.validation, pictures.class_counts, seed, epochs=epochs)
    return _outcome(trial.classifier, pictures, trial.seconds)


def _outcome(classifier: Classifier, pictures: Pictures, seconds: float) -> Outcome:
    validation, test = (
        predict_probabilities(classifier, SPEC, part.pixels, device="cpu")
        for part in (pictures.validation, pictures.test)
    )
    return Outcome(validation=validation, test=test, seconds=seconds)


def accuracies(found: Outcome, pictures: Pictures) -> list[float]:
    """Give how often the most probable class and the most probable domain are right."""
    parts = np.split(found.test, [pictures.class_counts[0]], axis=1)
    return [float((part.argmax(axis=1) == pictures.test.labels[:, k]).mean()) for k, part in enumerate(parts)]


def scores(found: Outcome, pictures: Pictures) -> MultiLabelScores:
    """Score the label sets of test pictures, at thresholds that validation pictures choose."""
    validation, test = (
        indicators(part.labels, pictures.class_counts) > 0 for part in (pictures.validation, pictures.test)
    )
    names = [str(number) for number in range(test.shape[1])]
    thresholds = fit_thresholds(found.validation, validation)
    judged = score_label_sets(found.test, test, names, thresholds, bootstrap_samples=2000, seed=0).multi_label
    assert judged is not None
    return judged


def rows(name: str, found: list[Outcome], pictures: Pictures) -> Iterator[str]:
    """Write a model's lines of the table; label sets are those of the first seed."""
    right = np.array([accuracies(outcome, pictures) for outcome in found]).T
    by_seed = [", ".join(f"{value:.3f}" for value in column) for column in right]
    judged = scores(found[0], pictures)
    low, high = judged.mean_average_precision_interval or (np.nan, np.nan)
    precision = f"{judged.mean_average_precision:.3f} [{low:.3f}, {high:.3f}]"
    for cut, sets in (("0.5", judged.at_half), ("fitted", judged.at_fitted)):
        yield f"| {name} | {by_seed[0]} | {by_seed[1]} | {precision} | {cut} | {_sets(sets)} |"


def _sets(found: LabelSetScores) -> str:
    low, high = found.subset_accuracy_interval
    return (
        f"{found.subset_accuracy:.3f} [{low:.3f}, {high:.3f}] | {found.hamming_loss:.3f} | {found.micro_f1:.3f} | "
        f"{found.macro_f1:.3f}"
    )


def main() -> None:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--images", type=int, default=250, help="training images of each domain")
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backbone, _ = load_pretrained(str(arguments.weights), SPEC, seed=0)
    pictures = read_pictures(arguments.data, validation=100, test=500)
    found: dict[str, list[Outcome]] = {"sigmoids": [], "two softmaxes": []}
    for seed in range(arguments.seeds):
        for name, run in (("sigmoids", by_sigmoids), ("two softmaxes", by_softmaxes)):
            outcome = run(backbone, pictures, images=arguments.images, epochs=arguments.epochs, seed=seed)
            found[name].append(outcome)
            right = [round(value, 4) for value in accuracies(outcome, pictures)]
            print(
                json.dumps({"model": name, "seed": seed, "right": right, "seconds": round(outcome.seconds, 1)}),
                flush=True,
            )
    scored = "Mean average precision | Threshold | Subset accuracy | Hamming loss | Micro F1 | Macro F1"
    print(f"| Network | Class by seed | Domain by seed | {scored} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, outcomes in found.items():
        print("\n".join(rows(name, outcomes, pictures)))


if __name__ == "__main__":
    main()
