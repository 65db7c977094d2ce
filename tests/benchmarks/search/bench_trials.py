"""Measures whole searches: the same trials, and the time until a good accuracy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Set

from command import note
from figures import Figure
from local_ray import local_ray
from ours import Search, experiment, listed, our_ray, search, space
from peers_plain_loop import search_with_plain_loop
from peers_tune_over_train import ENVIRONMENT, run_fixed_list, search_with_optuna
from workplace import DOMAIN, Workplace

TIME_TO_ACCURACY = {
    "time_to_accuracy_vs_tune_over_train": 8.0,
    "time_to_accuracy_vs_plain_loop": 3.0,
    "time_to_accuracy_vs_hand_cached": 1.2,
}


def measure_fixed_list(place: Workplace) -> Iterator[Figure]:
    """Time the same trials at depths 4 to 6: ours draws them, and the peer is given what ours drew."""
    protocol = place.protocol
    ours, peer = [], []
    for _ in range(protocol.repeats):
        found = _fixed_list(place)
        ours.append(found.seconds)
        with local_ray(num_cpus=place.threads + 1, environment=ENVIRONMENT, dashboard=True):
            outcome = run_fixed_list(place.task, protocol, found.configurations(), num_workers=place.num_workers)
        peer.append(outcome.seconds)
        note(f"fixed list: ours {found.seconds:.1f} s to {found.best:.3f}, peer {peer[-1]:.1f} s to {outcome.best:.3f}")
    yield Figure.of_medians("fixed_list_vs_tune_over_train", ours=ours, peer=peer, aim=10.0, unit="s")


def _fixed_list(place: Workplace) -> Search:
    protocol = place.protocol
    settings = listed({"space": space(protocol, shallowest=4)}, protocol.fixed_trials)
    config = experiment(place.domain(DOMAIN), place.weights, place.fresh("list"), search=settings)
    prepared = place.prepared(DOMAIN)
    with our_ray(place.threads):
        found = search(config, prepared)
    trials = found.result.trials
    if len(trials) != protocol.fixed_trials or any(trial.status != "complete" for trial in trials):
        raise RuntimeError(f"{protocol.fixed_trials} whole trials must have run, got {[t.status for t in trials]}")
    return found


def measure_time_to_accuracy(place: Workplace, names: Set[str]) -> Iterator[Figure]:
    """Time searches of the whole space until an epoch is within reach of the reference's best accuracy.

    All end there. A peer that does not get there is counted with the time limit, which is kind to it; ours without end.
    """
    target = place.reference - place.protocol.within
    note(f"the target is {target:.4f}")
    peers = {name: PEERS[name] for name in TIME_TO_ACCURACY if name in names}
    ours: list[float] = []
    times: dict[str, list[float]] = defaultdict(list)
    for seed in place.protocol.seeds:
        ours.append(_ours(place, seed, target))
        note(f"time to accuracy, seed {seed}: ours {ours[-1]:.1f} s")
        for name, peer in peers.items():
            reached = peer(place, seed, target)
            times[name].append(place.protocol.limit_s if reached is None else reached)
            missed = " (not reached: the limit)" if reached is None else ""
            note(f"{name}, seed {seed}: {times[name][-1]:.1f} s{missed}")
    for name in peers:
        yield Figure.of_medians(name, ours=ours, peer=times[name], aim=TIME_TO_ACCURACY[name], unit="s")


def _ours(place: Workplace, seed: int, target: float) -> float:
    protocol = place.protocol
    settings = {
        "space": space(protocol),
        "num_samples": protocol.racing_trials,
        "budget": {"time_budget_s": protocol.limit_s},
        "target": target,
        "warm_start": False,
    }
    config = experiment(place.domain(DOMAIN), place.weights, place.fresh("accuracy"), seed=seed, search=settings)
    prepared = place.prepared(DOMAIN)
    with our_ray(place.threads):
        found = search(config, prepared)
    reached = found.reached(target)
    if math.isinf(reached):
        note(f"ours did not reach {target:.4f} in {found.seconds:.1f} s: its best is {found.best:.4f}")
    return reached


def _tune_over_train(place: Workplace, seed: int, target: float) -> float | None:
    task, num_workers = place.task, place.num_workers
    with local_ray(num_cpus=place.threads + 1, environment=ENVIRONMENT, dashboard=True):
        outcome = search_with_optuna(task, place.protocol, seed=seed, num_workers=num_workers, target=target)
    return outcome.reached


def _plain_loop(place: Workplace, seed: int, target: float) -> float | None:
    return search_with_plain_loop(place.task, place.protocol, seed=seed, num_workers=place.num_workers, target=target)[
        1
    ]


def _hand_cached(place: Workplace, seed: int, target: float) -> float | None:
    return search_with_plain_loop(
        place.task, place.protocol, seed=seed, num_workers=place.num_workers, target=target, hand_cached=True
    )[1]


PEERS: dict[str, Callable[[Workplace, int, float], float | None]] = {
    "time_to_accuracy_vs_tune_over_train": _tune_over_train,
    "time_to_accuracy_vs_plain_loop": _plain_loop,
    "time_to_accuracy_vs_hand_cached": _hand_cached,
}
