"""Judges features where few images tell the classes: episodes of N ways and K shots, drawn by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import EpisodesConfig
from orchestrator.records import EpisodeScores

Positions = NDArray[np.int64]
Features = NDArray[np.floating[Any]]

_NORMAL_QUANTILE = 1.96


@dataclass(frozen=True, kw_only=True, eq=False)
class Episodes:
    """Hold E episodes over positions in a table of images.

    `classes` [E, N] are those of each, `support` [E, N, K] the images that tell them, `queries` [E, N, Q] the others
    that are to be told. `num_classes` counts the classes that could be drawn; with fewer than N there is no episode.
    """

    classes: Positions
    support: Positions
    queries: Positions
    num_classes: int

    def among(self, chosen: Positions) -> Self:
        """Give the same episodes over the ascending positions `chosen` alone, which hold all of theirs."""
        return replace(
            self, support=np.searchsorted(chosen, self.support), queries=np.searchsorted(chosen, self.queries)
        )


def draw_episodes(labels: NDArray[np.integer[Any]], config: EpisodesConfig, *, seed: int) -> Episodes:
    """Draw episodes from images with class indices [n].

    Vinyals et al., "Matching Networks for One Shot Learning", 2016: they are what few images a class are judged by.
    Classes and images are drawn without replacement within an episode, among the classes that have enough images.
    Episode e depends on (seed, e) and the labels alone: more of them begin with the same ones.
    """
    taken = config.shots + config.queries
    known, sizes = np.unique(labels, return_counts=True)
    drawable, sizes = known[sizes >= taken], sizes[sizes >= taken]
    count = config.count if len(drawable) >= config.ways else 0
    classes = np.zeros((count, config.ways), dtype=np.int64)
    images = np.zeros((count, config.ways, taken), dtype=np.int64)
    for episode in range(count):
        generator = np.random.default_rng([seed, episode])
        for way, place in enumerate(generator.choice(len(drawable), size=config.ways, replace=False)):
            images[episode, way] = generator.choice(sizes[place], size=taken, replace=False)
            classes[episode, way] = drawable[place]
    # So far an image is a number among those of its class. The places of one class at a time are in memory.
    for label in np.unique(classes):
        is_drawn = classes == label
        images[is_drawn] = np.flatnonzero(labels == label)[images[is_drawn]]
    return Episodes(
        classes=classes,
        support=images[:, :, : config.shots],
        queries=images[:, :, config.shots :],
        num_classes=len(drawable),
    )


def episode_accuracies(features: Features, episodes: Episodes) -> NDArray[np.float64]:
    """Give the share [E] of an episode's queries whose nearest prototype is that of their class.

    A prototype is the mean of its class's supporting features, by squared Euclidean distance (Snell, Swersky and Zemel,
    "Prototypical Networks for Few-shot Learning", 2017), features [n, d] and prototypes scaled to unit length.
    """
    units = _unit(np.asarray(features, dtype=np.float64))
    found = np.zeros(len(episodes.classes))
    for episode, (support, queries) in enumerate(zip(episodes.support, episodes.queries, strict=True)):
        prototypes = _unit(units[support].mean(axis=1))
        # Between unit vectors the nearest has the greatest product.
        nearest = (units[queries] @ prototypes.T).argmax(axis=2)
        found[episode] = (nearest == np.arange(len(support))[:, None]).mean()
    return found


def mean_interval(values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Give the mean of independent values [E], two at least, and m - 1.96 s / sqrt(E) to m + 1.96 s / sqrt(E).

    s is the sample deviation: the 95% interval of the mean that work on few-shot learning reports.
    """
    mean = float(values.mean())
    half = _NORMAL_QUANTILE * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def score_episodes(
    episodes: Episodes, config: EpisodesConfig, *, tuned: Features | None = None, pretrained: Features | None = None
) -> EpisodeScores:
    """Score tuned and pretrained features [n, d] of the same images by episodes; without episodes nothing is scored."""
    scores = EpisodeScores(**config.model_dump(), num_classes=episodes.num_classes)
    if not len(episodes.classes) or tuned is None or pretrained is None:
        return scores
    after, before = episode_accuracies(tuned, episodes), episode_accuracies(pretrained, episodes)
    found: dict[str, object] = {}
    for name, values in {"tuned": after, "pretrained": before, "gain": after - before}.items():
        found[name], found[f"{name}_interval"] = mean_interval(values)
    return scores.model_copy(update=found)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    # A feature of length 0 has no direction: it is as near to one prototype as to any other.
    unit: NDArray[np.float64] = rows / np.where(lengths > 0, lengths, 1.0)
    return unit
