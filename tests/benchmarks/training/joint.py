"""Measure what a source gains on PACS, and how well what is not of the target is told.

    python tests/benchmarks/training/joint.py DATA WEIGHTS [--arms NAME ...] [--seeds N ...] [--minutes M] [--tiny]
        [--per-class N] [--depth D] [--head NAME] [--decay W]

DATA holds the shards `<domain>-*.parquet` of PACS, WEIGHTS is the trunk of MobileNetV2 0.35. In one process without a
cluster, two studies:

- *Leave one domain out*: each domain in turn is the target, with ten images a class (N) to train on, and the other
  three are the source. The target alone against both together, plain and with each penalty, by the same recipe; and
  where a tenth of the source fits the cache: learnt from that alone, and with the whole source streamed. A seed says
  which images are drawn, how the head starts and how samples are ordered.
- *Outliers*: photo is the target and sketch the source, once as a class that rejects and once by outlier exposure; the
  area under the ROC curve of the score, photo's test images against sketch's. The same for a model of photo alone, by
  one minus its largest probability, and for cartoon, which no training saw.

The best epoch on the target's validation images is kept and tested on its test images, the same ones for every
training. Prints a JSON object for each training, and at the end tables in Markdown. No training begins after M minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import BASE, SPEC
from pacs_images import ArraySamples, Domain, read_domain

from orchestrator.config import Negatives
from orchestrator.evaluation.outliers import area_under_curve, tell_outliers
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import new_classifier, predict_probabilities
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.rehearsal import EndlessSamples
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Hyperparameters

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
TARGET_ONLY = "target only"
STUDIES = ("left out", "outliers")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Say how the source counts, without `companion` not at all; what share is held, and whether all is streamed."""

    name: str
    companion: dict[str, Any] | None = None
    held: float = 1.0
    is_streamed: bool = False

    def of(self, source: ArraySamples, seed: int) -> Companion | None:
        """Give the companion of a training; what is held of a source is drawn by the seed."""
        if self.companion is None:
            return None
        mixed = source.drawn(len(source), seed)
        samples = source if self.held == 1 else mixed.chosen(np.arange(round(self.held * len(mixed))))
        stream = EndlessSamples(samples=mixed) if self.is_streamed else None
        return Companion(samples=samples, stream=stream, **self.companion)


ARMS = (
    Arm(name=TARGET_ONLY),
    Arm(name="joint", companion={}),
    Arm(name="joint, weight 0.3", companion={"weight": 0.3}),
    Arm(name="joint, weight 0.1", companion={"weight": 0.1}),
    Arm(name="joint, 3 of 4", companion={"batch_share": 0.75}),
    Arm(name="joint, CORAL 10", companion={"penalty": "coral", "penalty_weight": 10.0}),
    Arm(name="joint, MMD 1", companion={"penalty": "mmd", "penalty_weight": 1.0}),
    Arm(name="joint, a tenth", companion={}, held=0.1),
    Arm(name="joint, streamed", companion={}, held=0.1, is_streamed=True),
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Say how large the trainings are."""

    per_class: int = 10
    source: int = 500
    validation: int = 150
    test: int = 580
    epochs: int = 15
    photos: int = 400
    outlier_epochs: int = 6


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what one training came to; `areas` are those under the ROC curve by domain."""

    study: str
    target: str
    arm: str
    seed: int
    accuracy: float
    seconds: float
    areas: dict[str, float] = field(default_factory=dict)


def joined(parts: list[ArraySamples]) -> ArraySamples:
    """Put samples one after the other."""
    return ArraySamples(
        pixels=np.concatenate([part.pixels for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        keys=np.concatenate([part.keys for part in parts]),
    )


def labelled(samples: ArraySamples, label: int) -> ArraySamples:
    """Give all samples one label."""
    return ArraySamples(pixels=samples.pixels, labels=np.full(len(samples), label), keys=samples.keys)


class Study:
    """Train on the domains, each read once."""

    def __init__(self, data: Path, backbone: Backbone, sizes: Sizes, recipe: dict[str, Any]) -> None:
        self._backbone = backbone
        self._sizes = sizes
        self._recipe = {**BASE, **recipe}
        self._domains = {
            name: read_domain(data, name, validation=sizes.validation, test=sizes.test) for name in DOMAINS
        }

    @property
    def learns_outliers(self) -> bool:
        """Tell whether the head can learn what is of no class."""
        return self._recipe.get("head") != "prototype"

    def left_out(self, name: str, arm: Arm, seed: int) -> Outcome:
        """Train on a few images of a domain, with the other domains beside them as the arm says."""
        target = self._domains[name]
        others = [domain.pool.drawn(self._sizes.source, seed) for key, domain in self._domains.items() if key != name]
        companion = arm.of(joined(others), seed)
        samples = target.pool.drawn_per_class(self._sizes.per_class, seed)
        found, seconds = self._train(target, samples, companion, len(target.classes), self._sizes.epochs, seed)
        right = found(target.test).argmax(axis=1) == target.test.labels
        return Outcome(
            study="left out",
            target=name,
            arm=arm.name,
            seed=seed,
            accuracy=round(float(right.mean()), 4),
            seconds=seconds,
        )

    def outliers(self, negatives: Negatives, seed: int) -> Outcome:
        """Train on photo with sketch as negatives, and test the score on sketch and on cartoon."""
        photo, num_classes = self._domains["photo"], len(self._domains["photo"].classes)
        rejects = int(negatives == "reject")
        companion = None
        if negatives != "none":
            samples = labelled(self._domains["sketch"].pool.drawn(self._sizes.photos, seed), rejects * num_classes)
            companion = Companion(
                samples=samples,
                num_extra=rejects,
                keeps_extra=bool(rejects),
                is_uniform=not rejects,
                weight=1.0 if rejects else 0.5,
            )
        train = photo.pool.drawn(self._sizes.photos, seed)
        outputs, epochs = num_classes + rejects, self._sizes.outlier_epochs
        found, seconds = self._train(photo, train, companion, outputs, epochs, seed)
        # A model that never saw an outlier is asked as one of outlier exposure is.
        asked: Negatives = "outlier_exposure" if negatives == "none" else negatives
        known, own = tell_outliers(found(photo.test), asked)
        areas = {}
        for name in ("sketch", "cartoon"):
            _, other = tell_outliers(found(self._domains[name].test), asked)
            assert own is not None and other is not None
            areas[name] = round(area_under_curve(own, other), 4)
        return Outcome(
            study="outliers",
            target="photo",
            arm={"none": TARGET_ONLY}.get(negatives, negatives.replace("_", " ")),
            seed=seed,
            accuracy=round(float((known.argmax(axis=1) == photo.test.labels).mean()), 4),
            seconds=seconds,
            areas=areas,
        )

    def _train(
        self, target: Domain, train: ArraySamples, companion: Companion | None, outputs: int, epochs: int, seed: int
    ) -> tuple[Any, float]:
        """Fine-tune; give what predicts the probabilities of samples, and the seconds that the training took."""
        recipe = Hyperparameters.model_validate({**self._recipe, "epochs": epochs})
        settings = TrainingSettings(
            seed=seed, batch_norm="train", precision="fp32", device="cpu", metric="val_accuracy"
        )
        classifier = new_classifier(self._backbone, outputs, seed=seed)
        result = fine_tune(classifier, SPEC, train, target.validation, recipe, settings, companion=companion)

        def predict(samples: ArraySamples) -> Any:
            return predict_probabilities(classifier, SPEC, samples.pixels, device="cpu")

        return predict, round(result.seconds, 1)


def plan(
    study: Study, arms: list[Arm], seeds: list[int], studies: Sequence[str]
) -> Iterator[tuple[Callable[[int], Outcome], int]]:
    """Order the trainings: a run that is cut short has every one once before any twice."""
    kinds: tuple[Negatives, ...] = ("none", "reject", *(["outlier_exposure"] if study.learns_outliers else []))
    for seed in seeds:
        if "outliers" in studies:
            yield from ((partial(study.outliers, kind), seed) for kind in kinds)
        if "left out" in studies:
            yield from ((partial(study.left_out, name, arm), seed) for name in DOMAINS for arm in arms)


def tables(outcomes: list[Outcome], arms: list[str]) -> Iterator[str]:
    """Write what was found: the mean over seeds and the mean gain over the target alone, with standard errors."""
    left_out = {
        (found.target, found.arm, found.seed): found.accuracy for found in outcomes if found.study == "left out"
    }
    yield f"| Target | {' | '.join(arms)} |"
    yield "|---" * (len(arms) + 1) + "|"
    for target in DOMAINS:
        cells = []
        for arm in arms:
            own = {seed: value for (name, which, seed), value in left_out.items() if (name, which) == (target, arm)}
            base = {seed: left_out.get((target, TARGET_ONLY, seed)) for seed in own}
            gains = [100 * (own[seed] - value) for seed, value in base.items() if value is not None]
            cells.append(_cell(list(own.values()), [] if arm == TARGET_ONLY else gains))
        yield f"| {target} | {' | '.join(cells)} |"
    yield ""
    yield "| Score | Accuracy on photo | AUC of sketch | AUC of cartoon, never seen |"
    yield "|---|---|---|---|"
    outliers = [found for found in outcomes if found.study == "outliers"]
    for arm in dict.fromkeys(found.arm for found in outliers):
        own_arm = [found for found in outliers if found.arm == arm]
        columns = [[found.accuracy for found in own_arm]]
        columns += [[found.areas[name] for found in own_arm] for name in ("sketch", "cartoon")]
        yield f"| {arm} | {' | '.join(_cell(column, []) for column in columns)} |"


def _cell(values: list[float], gains: list[float]) -> str:
    if not values:
        return ""
    if gains:
        return f"{statistics.mean(values):.3f}, {statistics.mean(gains):+.1f}{_error(gains, 1)}"
    return f"{statistics.mean(values):.3f}{_error(values, 3)}"


def _error(values: list[float], digits: int) -> str:
    """Write the standard error of a mean; nothing for a single value."""
    return f" ({statistics.stdev(values) / len(values) ** 0.5:.{digits}f})" if len(values) > 1 else ""


def main() -> None:
    """Train, test and print."""
    names = [arm.name for arm in ARMS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arms", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="one training of each arm")
    parser.add_argument("--only", choices=STUDIES, help="one of the studies alone")
    parser.add_argument("--depth", type=int, default=3, help="freeze depth of the recipe")
    parser.add_argument(
        "--per-class", type=int, default=Sizes.per_class, help="training images of the target's classes"
    )
    parser.add_argument("--head", choices=("linear", "cosine", "prototype"), default="linear")
    parser.add_argument("--decay", type=float, default=0.0, help="weight decay of the recipe")
    parser.add_argument("--minutes", type=float, default=60.0, help="no training begins later than this")
    parser.add_argument("--tiny", action="store_true", help="try every line in a minute; the figures mean nothing")
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    sizes = Sizes(per_class=arguments.per_class)
    if arguments.tiny:
        sizes = Sizes(per_class=2, source=8, validation=16, test=16, epochs=2, photos=32, outlier_epochs=2)
    backbone, _ = load_pretrained(str(arguments.weights), SPEC, seed=0)
    recipe = {"freeze_depth": arguments.depth, "head": arguments.head, "weight_decay": arguments.decay}
    study = Study(arguments.data, backbone, sizes, recipe)
    arms = [arm for arm in ARMS if arm.name in arguments.arms]
    outcomes: list[Outcome] = []
    for run, seed in plan(study, arms, arguments.seeds, STUDIES if arguments.only is None else (arguments.only,)):
        if time.monotonic() - started > 60 * arguments.minutes:
            print("left out for lack of time: a training of seed", seed, file=sys.stderr)
            continue
        outcomes.append(run(seed))
        print(json.dumps(vars(outcomes[-1])), flush=True)
    print("\n".join(tables(outcomes, [arm.name for arm in arms])))


if __name__ == "__main__":
    main()
