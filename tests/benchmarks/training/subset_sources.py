"""Measure on PACS whether a source pays beside models of single subsets as it does beside their group's.

    python tests/benchmarks/training/subset_sources.py DATA WEIGHTS [--source DOMAIN] [--seeds N ...] [--minutes M]
        [--per-class N] [--tiny]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. In one process without a
cluster: one domain is the source, the other three are subsets with ten images a class (N) each. By one recipe a model
is trained for the group of the three, and one for each of them, both with and without the source, whose labels are
learnt. The best epoch on the validation images of what is trained is kept, and every subset is tested on its own test
images. A seed says which images are drawn, how the head starts and how samples are ordered. Prints a JSON object for
each subset and model, and at the end a table in Markdown. No seed begins after M minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from joint import DOMAINS, joined
from methods import BASE, SPEC
from pacs_images import ArraySamples, Domain, read_domain

from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Hyperparameters

MODELS = ("group's", "group's with the source", "own", "own with the source")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Say how large the trainings are; `source`, `validation` and `test` count images of a domain."""

    per_class: int = 10
    source: int = 500
    validation: int = 50
    test: int = 580
    epochs: int = 15


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what one model came to on the test images of a subset."""

    subset: str
    model: str
    seed: int
    accuracy: float
    seconds: float


def outcomes_of(
    subsets: Mapping[str, Domain], source: Domain, backbone: Backbone, sizes: Sizes, seed: int
) -> Iterator[Outcome]:
    """Train the models of one seed, and test every subset by them."""
    drawn = {name: domain.pool.drawn_per_class(sizes.per_class, seed) for name, domain in subsets.items()}
    beside = Companion(samples=source.pool.drawn(sizes.source, seed))
    for companion, kind in ((None, ""), (beside, " with the source")):
        of_all = joined([domain.validation for domain in subsets.values()])
        groups, seconds = train(backbone, joined(list(drawn.values())), of_all, companion, sizes, seed, source)
        for name, domain in subsets.items():
            yield outcome(name, f"group's{kind}", seed, groups, domain, seconds)
            own, own_seconds = train(backbone, drawn[name], domain.validation, companion, sizes, seed, source)
            yield outcome(name, f"own{kind}", seed, own, domain, own_seconds)


def train(
    backbone: Backbone,
    samples: ArraySamples,
    validation: ArraySamples,
    companion: Companion | None,
    sizes: Sizes,
    seed: int,
    source: Domain,
) -> tuple[Classifier, float]:
    """Fine-tune a model over the classes, which all domains share; give it and the seconds that it took."""
    recipe = Hyperparameters.model_validate({**BASE, "freeze_depth": 3, "epochs": sizes.epochs})
    settings = TrainingSettings(seed=seed, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy")
    classifier = new_classifier(backbone, len(source.classes), seed=seed)
    found = fine_tune(classifier, SPEC, samples, validation, recipe, settings, companion=companion)
    return classifier, found.seconds


def outcome(name: str, model: str, seed: int, classifier: Classifier, domain: Domain, seconds: float) -> Outcome:
    """Test a model on the images of a subset."""
    found = predict_probabilities(classifier, SPEC, domain.test.pixels, device="cpu").argmax(axis=1)
    accuracy = round(float((found == domain.test.labels).mean()), 4)
    return Outcome(subset=name, model=model, seed=seed, accuracy=accuracy, seconds=round(seconds, 1))


def table(outcomes: Sequence[Outcome], subsets: Sequence[str]) -> Iterator[str]:
    """Write mean accuracies, with the gain by the source in points, paired by seed, and its standard error."""
    found = {(one.subset, one.model, one.seed): one.accuracy for one in outcomes}
    seeds = sorted({one.seed for one in outcomes})
    yield f"| Subset | {' | '.join(MODELS)} |"
    yield "|---" * (len(MODELS) + 1) + "|"
    for subset in subsets:
        cells = []
        for model in MODELS:
            own = [found[subset, model, seed] for seed in seeds]
            plain = [found[subset, model.removesuffix(" with the source"), seed] for seed in seeds]
            gains = [100 * (value - base) for value, base in zip(own, plain, strict=True)]
            gain = f", {statistics.mean(gains):+.1f}{_error(gains)}" if model.endswith(" with the source") else ""
            cells.append(f"{statistics.mean(own):.3f}{gain}")
        yield f"| {subset} | {' | '.join(cells)} |"


def _error(values: Sequence[float]) -> str:
    """Write the standard error of a mean; nothing for a single value."""
    return f" ({statistics.stdev(values) / len(values) ** 0.5:.1f})" if len(values) > 1 else ""


def main() -> None:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--source", choices=DOMAINS, default="photo", help="the domain that is the source")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="a draw of images each")
    parser.add_argument("--per-class", type=int, default=Sizes.per_class, help="training images of a subset's classes")
    parser.add_argument("--minutes", type=float, default=60.0, help="no seed begins later than this")
    parser.add_argument("--tiny", action="store_true", help="try every line in a minute; the figures mean nothing")
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    sizes = Sizes(per_class=arguments.per_class)
    if arguments.tiny:
        sizes = Sizes(per_class=2, source=16, validation=16, test=16, epochs=2)
    backbone, _ = load_pretrained(str(arguments.weights), SPEC, seed=0)
    domains = {
        name: read_domain(arguments.data, name, validation=sizes.validation, test=sizes.test) for name in DOMAINS
    }
    source = domains.pop(arguments.source)
    outcomes: list[Outcome] = []
    for seed in arguments.seeds:
        if time.monotonic() - started > 60 * arguments.minutes:
            print("left out for lack of time: seed", seed, file=sys.stderr)
            continue
        for found in outcomes_of(domains, source, backbone, sizes, seed):
            outcomes.append(found)
            print(json.dumps(vars(found)), flush=True)
    print("\n".join(table(outcomes, list(domains))))


if __name__ == "__main__":
    main()
