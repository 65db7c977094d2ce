"""Measures what a trial costs beside its training: wall less compute, divided by the number of trials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from command import note
from figures import Figure
from local_ray import local_ray
from ours import experiment, listed, our_ray, prepare, search, space
from peer_training import Configuration
from peers_tune_over_train import ENVIRONMENT, run_fixed_list
from photo_task import export_task, write_domain
from protocol import PhotoTask
from workplace import DOMAIN, Workplace

MOST_S = 0.2
TRIVIAL = Configuration(freeze_depth=5, learning_rate=1e-3, epochs=1)


def measure_overhead(place: Workplace) -> Iterator[Figure]:
    """Run trivial trials one at a time: one epoch over a few images, and not of heads, which ours would batch.

    The peer runs fewer and is forgiven the time until its first trainer, so that its start is not spread over few.
    """
    data, prepared, task = _few_images(place)
    ours, peer = [], []
    for _ in range(place.protocol.repeats):
        ours.append(_ours(place, data, prepared))
        peer.append(_tune_over_train(place, task))
        note(f"overhead of a trial: ours {ours[-1]:.3f} s, peer {peer[-1]:.3f} s")
    yield Figure.of_medians("overhead_per_trial_vs_tune_over_train", ours=ours, peer=peer, aim=50.0, unit="s/trial")
    yield Figure.of_medians("overhead_per_trial_within_limit", ours=ours, peer=[MOST_S], aim=1.0, unit="s/trial")


def _few_images(place: Workplace) -> tuple[Path, Path, PhotoTask]:
    data = write_domain(place.data, DOMAIN, place.fresh("few"), max_images=place.protocol.trivial_images)
    with our_ray(place.threads):
        prepared = prepare(experiment(data, place.weights, place.fresh("few-prepared")))
    return data, prepared, export_task(prepared, place.weights, place.fresh("few-task"), threads=place.threads)


def _ours(place: Workplace, data: Path, prepared: Path) -> float:
    trials = place.protocol.trivial_trials
    trivial = space(replace(place.protocol, epochs=(TRIVIAL.epochs,)), shallowest=5, deepest=5)
    settings = listed({"space": trivial, "max_concurrent_trials": 1}, trials)
    config = experiment(data, place.weights, place.fresh("trivial"), search=settings)
    with our_ray(place.threads):
        found = search(config, prepared)
    if len(found.result.trials) < trials:
        raise RuntimeError(f"{trials} trials or more must have run, got {len(found.result.trials)}")
    return (found.seconds - found.compute) / (len(found.result.trials) + len(found.result.race))


def _tune_over_train(place: Workplace, task: PhotoTask) -> float:
    trials = place.protocol.peer_trivial_trials
    with local_ray(num_cpus=place.threads + 1, environment=ENVIRONMENT, dashboard=True):
        outcome = run_fixed_list(task, place.protocol, [TRIVIAL] * trials, num_workers=0)
    return (outcome.seconds - outcome.until_first - outcome.compute) / trials
