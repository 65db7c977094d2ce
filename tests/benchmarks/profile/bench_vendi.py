"""Measures the Vendi score of all images against the functions of its authors' package."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from command import note
from figures import Figure
from numpy.typing import NDArray
from sizes import Place
from vendi_score import vendi

from orchestrator.diversity.vendi import similarity_matrix, unit_directions, vendi_score

MOST_ERROR = 1e-6
Features = NDArray[np.float64]


def measure_vendi(place: Place) -> Iterator[Figure]:
    """Score the same features by images (n x n) and by dimensions (d x d), as the package does, and by ours.

    The package's `score_X` ignores its order q; order 1 is measured, where all three mean the same.
    """
    rng = np.random.default_rng(0)
    dimensions = place.sizes.vendi_dimensions
    spread = 1.0 / np.sqrt(1.0 + np.arange(dimensions))
    features = rng.normal(size=(place.sizes.vendi_images, dimensions)) * spread
    sides: dict[str, Callable[[Features], float]] = {"ours": _ours, "x": vendi.score_X, "dual": vendi.score_dual}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(place.sizes.repeats):
        scores = {}
        for name, score in sides.items():
            started = time.perf_counter()
            scores[name] = float(score(features))
            seconds[name].append(time.perf_counter() - started)
        error = max(abs(scores[name] / scores["ours"] - 1) for name in ("x", "dual"))
        note(f"Vendi scores {scores}, relative error {error:.1e}")
        if error > MOST_ERROR:
            raise RuntimeError(f"the scores must agree within {MOST_ERROR:g}, got {scores}")
    yield Figure.of_medians("vendi_vs_score_x", ours=seconds["ours"], peer=seconds["x"], aim=50.0, unit="s")
    yield Figure.of_medians("vendi_vs_score_dual", ours=seconds["ours"], peer=seconds["dual"], aim=1.0, unit="s")


def _ours(features: Features) -> float:
    return vendi_score(similarity_matrix(unit_directions(features)))
