"""Drives orchestrator the way its command line does, and reads from the records when trials ended."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from local_ray import local_ray
from peer_training import Configuration
from protocol import BATCH_SIZE, IMAGE_SIZE, WIDTH, Protocol

from orchestrator.cluster.session import session, set_environment
from orchestrator.config import ExperimentConfig
from orchestrator.experiment_file import validate_experiment
from orchestrator.pipeline import Pipeline
from orchestrator.records import SearchResult, Trial
from orchestrator.search.spending import Spending

UP_TO_GROUP = ("pretrain", "catalogue", "profile", "group")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Hold a timed search stage: when it began, its wall seconds, and its trials."""

    started: float
    seconds: float
    result: SearchResult

    @property
    def best(self) -> float:
        """Give the best value of all trials."""
        return max(trial.value for trial in self.result.trials if trial.value is not None)

    @property
    def compute(self) -> float:
        """Sum the seconds of everything that trained."""
        return sum(run.seconds for run in (*self.result.trials, *self.result.race))

    def reached(self, target: float) -> float:
        """Give the seconds from the stage's start until an epoch had this accuracy; infinity without one."""
        reaching = (trial for _, trial in self._reaching(target))
        return min((self._epoch_end(trial, target) - self.started for trial in reaching), default=math.inf)

    def cost_until(self, target: float) -> float:
        """Sum the seconds of the trials that had ended when the first with this value had; infinity without one."""
        end = min((end for end, _ in self._reaching(target)), default=math.inf)
        if math.isinf(end):
            return end
        return sum(trial.seconds for trial in self.result.trials if self._end(trial) <= end)

    def configurations(self) -> list[Configuration]:
        """List what the trials were given."""
        return [
            Configuration(
                freeze_depth=trial.hyperparameters.freeze_depth,
                learning_rate=trial.hyperparameters.learning_rate,
                epochs=trial.hyperparameters.epochs,
            )
            for trial in self.result.trials
        ]

    def _reaching(self, target: float) -> Iterator[tuple[float, Trial]]:
        for trial in self.result.trials:
            if trial.value is not None and trial.value >= target:
                yield self._end(trial), trial

    def _epoch_end(self, trial: Trial, target: float) -> float:
        """Give the end of the first epoch with this accuracy; heads that train at once are known at their end only."""
        if any(other.started == trial.started for other in self.result.trials if other is not trial):
            return self._end(trial)
        epoch = next(metrics.epoch for metrics in trial.history if metrics.val_accuracy >= target)
        return trial.started + trial.seconds * epoch / len(trial.history)

    def _end(self, trial: Trial) -> float:
        # Heads that train at once start together, and each records its share of their time: all end at their sum.
        together = (other for other in self.result.trials if other.started == trial.started)
        return trial.started + sum(other.seconds for other in together)


def experiment(data: Path, weights: Path, storage: Path, *, seed: int = 0, **sections: Any) -> ExperimentConfig:
    """Describe a search over one domain, named after it; `sections` replace keys of the sections that they name."""
    base: dict[str, Any] = {
        "name": data.name,
        "storage_path": str(storage),
        "seed": seed,
        "data": {
            "uri": str(data),
            "image": "image",
            "label": "label",
            "subset": "domain",
            "id": "path",
            "split": {"column": "split"},
        },
        "backbone": {
            "name": "mobilenet_v2",
            "kwargs": {"width_mult": WIDTH},
            "weights": str(weights),
            "image_size": IMAGE_SIZE,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        # What a warm start likens domains by.
        "diversity": {"measures": ["label_entropy", "feature_diversity"]},
        "grouping": {"measures": ["label_entropy"], "num_groups": 1},
        "finetune": {"batch_size": BATCH_SIZE, "optimizer": "adam"},
        "train": {"batch_norm": "frozen", "precision": "fp32"},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}
    return validate_experiment(base)


def space(protocol: Protocol, *, shallowest: int = 0, deepest: int = 6) -> dict[str, Any]:
    """Give the space that peers search too."""
    low, high = protocol.learning_rates
    return {
        "freeze_depth": {"low": shallowest, "high": deepest},
        "learning_rate": {"low": low, "high": high, "log": True},
        "epochs": list(protocol.epochs),
    }


@contextmanager
def our_ray(threads: int) -> Iterator[None]:
    """Hold a Ray as the command line starts one; what a session sets in the environment ends with it."""
    before = dict(os.environ)
    set_environment()
    try:
        with local_ray(num_cpus=threads, environment={}), session():
            yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]


def prepare(config: ExperimentConfig) -> Path:
    """Run the stages up to `group` and give the run directory."""
    Pipeline(config, say=_say).run(UP_TO_GROUP)
    return Path(config.storage_path) / config.name


def search(config: ExperimentConfig, prepared: Path) -> Search:
    """Time the search stage in a copy of a prepared run directory: nothing of an earlier search is found there.

    Stages whose inputs differ from the prepared run's are brought up to date before the clock starts.
    """
    run = Path(config.storage_path) / config.name
    shutil.copytree(prepared, run)
    prepare(config)
    pipeline = Pipeline(config, say=_say)
    started, clock = time.time(), time.perf_counter()
    pipeline.run(["search"])
    seconds = time.perf_counter() - clock
    (path,) = run.glob("groups/*/search.json")
    return Search(started=started, seconds=seconds, result=SearchResult.from_json(path.read_bytes(), source=str(path)))


def listed(search_settings: Mapping[str, Any], num_trials: int) -> dict[str, Any]:
    """Give search settings under which `num_trials` trials run whole: without stopping, and without a library.

    What the budget must hold beyond them is for the race of finalists, which stays on our side of the comparison.
    """
    budget = next(total for total in count(num_trials) if Spending(num_trials=total).search_trials >= num_trials)
    return {
        **search_settings,
        "num_samples": budget,
        "budget": {"trials": budget},
        "early_stopping": False,
        "warm_start": False,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
