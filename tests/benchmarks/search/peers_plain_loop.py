"""The peer that many users write: one process, an Optuna study with a MedianPruner around a PyTorch loop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import optuna
from peer_training import Configuration, Epoch, HandCachedHeads, PeerTraining
from protocol import NUM_STAGES, PhotoTask, Protocol


def search_with_plain_loop(
    task: PhotoTask,
    protocol: Protocol,
    *,
    seed: int,
    num_workers: int,
    target: float | None,
    hand_cached: bool = False,
) -> tuple[float, float | None]:
    """Search until `target` is reached, a number of trials is done, or the time limit is spent.

    Gives the best validation accuracy, and the seconds after which `target` was reached, None where it was not.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.perf_counter()
    heads = HandCachedHeads(task, seed) if hand_cached else None
    reached: list[float] = []
    best: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        configuration = Configuration(
            freeze_depth=trial.suggest_int("freeze_depth", 0, NUM_STAGES),
            learning_rate=trial.suggest_float("learning_rate", *protocol.learning_rates, log=True),
            epochs=trial.suggest_categorical("epochs", protocol.epochs),
        )
        highest = 0.0
        for epoch in _epochs(task, configuration, seed, num_workers, heads):
            highest = max(highest, epoch.val_accuracy)
            best.append(epoch.val_accuracy)
            if target is not None and epoch.val_accuracy >= target:
                reached.append(time.perf_counter() - started)
                trial.study.stop()
                return highest
            trial.report(epoch.val_accuracy, epoch.epoch)
            if time.perf_counter() - started > protocol.limit_s:
                trial.study.stop()
                return highest
            if trial.should_prune():
                raise optuna.TrialPruned
        return highest

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    # Until the target is reached a searcher with time left goes on; the reference has a number of trials.
    study.optimize(objective, n_trials=protocol.reference_trials if target is None else None)
    return max(best), reached[0] if reached else None


def _epochs(
    task: PhotoTask,
    configuration: Configuration,
    seed: int,
    num_workers: int,
    heads: HandCachedHeads | None,
) -> Iterator[Epoch]:
    if heads is not None and configuration.freeze_depth == NUM_STAGES:
        yield from heads.train(configuration)
        return
    training = PeerTraining(task, configuration, seed, num_workers)
    for _ in range(configuration.epochs):
        yield training.run_epoch()
