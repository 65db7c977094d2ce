"""Measures what the recipes of another domain's search save."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from command import note
from figures import Figure
from ours import Search, experiment, our_ray, search, space
from workplace import DOMAIN, Workplace

EARLIER_DOMAIN = "art_painting"


def measure_warm_start(place: Workplace) -> Iterator[Figure]:
    """Compare, for each seed, what a cold search paid until its best with what a warm one paid until the same value.

    What was paid is the seconds of the trials that had ended by then. A warm search may try on for three times as many
    trials as the cold one; when it does not get there, it has paid without end.
    """
    cold_costs, warm_costs = [], []
    for seed in place.protocol.warm_start_seeds:
        library = place.fresh("library")
        _search(place, EARLIER_DOMAIN, seed, warm=False, library=library)
        cold = _search(place, DOMAIN, seed, warm=False, library=place.fresh("no-library"))
        warm = _search(place, DOMAIN, seed, warm=True, library=library, target=cold.best)
        if not any(trial.origin == "warm_start" for trial in warm.result.trials):
            raise RuntimeError("the warm search must have begun with the library's recipes, but none was used")
        cold_costs.append(cold.cost_until(cold.best))
        warm_costs.append(warm.cost_until(cold.best))
        note(f"warm start, seed {seed}: {cold.best:.4f} for {cold_costs[-1]:.1f} s cold, {warm_costs[-1]:.1f} s warm")
    yield Figure.of_medians("warm_start_cost_saved", ours=warm_costs, peer=cold_costs, aim=2.0, unit="s")


def _search(
    place: Workplace, domain: str, seed: int, *, warm: bool, library: Path, target: float | None = None
) -> Search:
    protocol = place.protocol
    settings = {
        "space": space(protocol),
        "num_samples": protocol.warm_start_trials * (1 if target is None else 3),
        "target": target,
        "warm_start": warm,
        "library": str(library),
    }
    config = experiment(place.domain(domain), place.weights, place.fresh(f"warm-{domain}"), seed=seed, search=settings)
    prepared = place.prepared(domain)
    with our_ray(place.threads):
        return search(config, prepared)
