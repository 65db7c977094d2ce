"""The peer that Ray documents: a Tune function that builds a TorchTrainer, and reports through TuneReportCallback.

https://docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html
Tuned: one worker with every core, a health check every 0.2 s, and one checkpoint, at the end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peer_training import Configuration, PeerTraining
from protocol import NUM_STAGES, PhotoTask, Protocol
from ray import train, tune
from ray.train.torch import TorchTrainer, prepare_model
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search.optuna import OptunaSearch

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Say how a search went, in seconds from the call of `Tuner.fit`.

    `compute` is what the training functions took together, `until_first` the time until the first one's trainer was
    built, `reached` when the target was met, None where it was not.
    """

    seconds: float
    compute: float
    until_first: float
    best: float
    reached: float | None


def train_worker(config: dict[str, Any]) -> None:
    """Train one configuration in a Ray Train worker."""
    started = time.perf_counter()
    configuration = Configuration(
        **{name: config[name] for name in ("freeze_depth", "learning_rate", "epochs")}  # what Tune has drawn
    )
    training = PeerTraining(config["task"], configuration, config["seed"], config["num_workers"])
    training.network = prepare_model(training.network)
    for number in range(1, configuration.epochs + 1):
        metrics = {**asdict(training.run_epoch()), "at": time.time(), "driver_started": config["driver_started"]}
        if number < configuration.epochs:
            train.report({**metrics, "compute": time.perf_counter() - started})
            continue
        with tempfile.TemporaryDirectory() as directory:
            torch.save(training.network.state_dict(), Path(directory) / "model.pt")
            compute = time.perf_counter() - started
            train.report({**metrics, "compute": compute}, checkpoint=train.Checkpoint.from_directory(directory))


def drive_trial(config: dict[str, Any]) -> None:
    """Run one trial's TorchTrainer."""
    constants = config["constants"]
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={**config["configuration"], **constants, "driver_started": time.time()},
        scaling_config=train.ScalingConfig(
            num_workers=1, resources_per_worker={"CPU": constants["task"].threads}, use_gpu=False
        ),
        run_config=train.RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=constants["storage_path"],
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


class _StopAtTarget(tune.Stopper):
    """End the search when a report meets the target, or time is up. A file tells when: Tune copies what it is given."""

    def __init__(self, target: float | None, note: Path, deadline: float) -> None:
        self._target = target
        self._note = note
        self._deadline = deadline

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if self._target is not None and result.get("val_accuracy", -1.0) >= self._target and not self._note.exists():
            self._note.write_text(repr(result["at"]))
        return False

    def stop_all(self) -> bool:
        return self._note.exists() or time.time() > self._deadline


def run_fixed_list(
    task: PhotoTask, protocol: Protocol, configurations: Sequence[Configuration], *, num_workers: int
) -> Outcome:
    """Run given trials one after another, each with all cores."""
    listed = tune.grid_search([asdict(configuration) for configuration in configurations])
    return _run(task, protocol, listed, tune.TuneConfig(max_concurrent_trials=1), num_workers=num_workers)


def search_with_optuna(task: PhotoTask, protocol: Protocol, *, seed: int, num_workers: int, target: float) -> Outcome:
    """Search the whole space with OptunaSearch until the target is reached or the time limit is spent."""
    space = {
        "freeze_depth": tune.randint(0, NUM_STAGES + 1),
        "learning_rate": tune.loguniform(*protocol.learning_rates),
        "epochs": tune.choice(protocol.epochs),
    }
    config = tune.TuneConfig(
        search_alg=OptunaSearch(metric="val_accuracy", mode="max", seed=seed),
        num_samples=-1,
        max_concurrent_trials=1,
    )
    return _run(task, protocol, space, config, num_workers=num_workers, seed=seed, target=target)


def _run(
    task: PhotoTask,
    protocol: Protocol,
    configuration: Any,
    config: tune.TuneConfig,
    *,
    num_workers: int,
    seed: int = 0,
    target: float | None = None,
) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tune-over-train-", ignore_cleanup_errors=True) as scratch:
        note = Path(scratch) / "reached"
        constants = {"task": task, "seed": seed, "num_workers": num_workers, "storage_path": scratch}
        tuner = tune.Tuner(
            tune.with_resources(drive_trial, {"CPU": 1}),
            param_space={"configuration": configuration, "constants": constants},
            tune_config=config,
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                stop=_StopAtTarget(target, note, time.time() + protocol.limit_s),
            ),
        )
        started = time.time()
        results = tuner.fit()
        seconds = time.time() - started
        if results.errors:
            raise RuntimeError("a trial of the peer failed") from results.errors[0]
        found = [result.metrics for result in results if result.metrics and "val_accuracy" in result.metrics]
        return Outcome(
            seconds=seconds,
            compute=sum(metrics["compute"] for metrics in found),
            until_first=min(metrics["driver_started"] for metrics in found) - started,
            best=max(metrics["val_accuracy"] for metrics in found),
            reached=float(note.read_text()) - started if note.exists() else None,
        )
