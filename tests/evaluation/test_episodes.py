"""Episodes are drawn by seed, judged by the nearest prototype, and their intervals hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.config import EpisodesConfig
from orchestrator.evaluation.episodes import draw_episodes, episode_accuracies, mean_interval, score_episodes

LABELS = np.repeat(np.arange(8), 12)
FIVE_WAYS = EpisodesConfig(ways=5, shots=3, queries=6, count=40)


def clouds(spread: float, *, seed: int = 0) -> NDArray[np.float64]:
    centres = np.random.default_rng(99).normal(size=(8, 16))
    return centres[LABELS] + spread * np.random.default_rng(seed).normal(size=(len(LABELS), 16))


def test_an_episode_has_its_ways_shots_and_queries_of_its_classes() -> None:
    drawn = draw_episodes(LABELS, FIVE_WAYS, seed=1)
    assert drawn.classes.shape == (40, 5) and drawn.support.shape == (40, 5, 3) and drawn.queries.shape == (40, 5, 6)
    assert drawn.num_classes == 8
    for classes, support, queries in zip(drawn.classes, drawn.support, drawn.queries, strict=True):
        assert len(set(classes)) == 5
        images = np.concatenate([support, queries], axis=1)
        assert len(np.unique(images)) == images.size
        assert (LABELS[images] == classes[:, None]).all()


def test_episodes_are_the_same_for_a_seed_and_more_begin_alike() -> None:
    some, same, other = (draw_episodes(LABELS, FIVE_WAYS, seed=seed) for seed in (1, 1, 2))
    more = draw_episodes(LABELS, FIVE_WAYS.model_copy(update={"count": 60}), seed=1)
    assert np.array_equal(some.support, same.support) and np.array_equal(some.queries, same.queries)
    assert np.array_equal(more.queries[:40], some.queries)
    assert not np.array_equal(other.queries, some.queries)
    scores = [score_episodes(found, FIVE_WAYS, tuned=clouds(2.0), pretrained=clouds(3.0)) for found in (some, same)]
    assert scores[0] == scores[1] and scores[0].tuned_interval is not None


def test_images_are_drawn_among_those_of_their_class_wherever_they_stand() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10, dtype=np.int32) * 3, np.arange(4, 14)))
    drawn = draw_episodes(labels, FIVE_WAYS.model_copy(update={"count": 5}), seed=1)
    members = [np.flatnonzero(labels == label) for label in range(15, 30, 3)]
    for episode in range(5):
        generator = np.random.default_rng([1, episode])
        for way, place in enumerate(generator.choice(5, size=5, replace=False)):
            chosen = generator.choice(members[place], size=9, replace=False)
            assert np.array_equal(drawn.support[episode, way], chosen[:3])
            assert np.array_equal(drawn.queries[episode, way], chosen[3:])
            assert drawn.classes[episode, way] == 15 + 3 * place


def test_accuracies_are_those_of_the_nearest_unit_prototype() -> None:
    features, drawn = clouds(1.5), draw_episodes(LABELS, FIVE_WAYS, seed=1)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = []
    for support, queries in zip(drawn.support, drawn.queries, strict=True):
        means = [units[images].mean(axis=0) for images in support]
        means = [mean / np.linalg.norm(mean) for mean in means]
        hits = [
            np.argmin([((units[image] - mean) ** 2).sum() for mean in means]) == way
            for way, images in enumerate(queries)
            for image in images
        ]
        expected.append(np.mean(hits))
    np.testing.assert_allclose(episode_accuracies(features, drawn), expected)


def test_clear_features_are_told_and_noise_is_not() -> None:
    drawn = draw_episodes(LABELS, FIVE_WAYS, seed=1)
    assert episode_accuracies(clouds(0.01), drawn).mean() == 1.0
    assert episode_accuracies(clouds(1000.0), drawn).mean() == pytest.approx(0.2, abs=0.06)
    assert np.isfinite(episode_accuracies(np.zeros((len(LABELS), 16)), drawn)).all()


def test_a_mean_has_the_interval_of_the_formula() -> None:
    mean, (low, high) = mean_interval(np.array([0.2, 0.4, 0.9]))
    assert mean == pytest.approx(0.5)
    half = 1.96 * np.sqrt((0.09 + 0.01 + 0.16) / 2) / np.sqrt(3)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))


def test_intervals_cover_the_mean_over_all_episodes() -> None:
    features = clouds(2.0)
    everything = FIVE_WAYS.model_copy(update={"count": 4000})
    accuracies = episode_accuracies(features, draw_episodes(LABELS, everything, seed=3))
    truth = accuracies.mean()
    intervals = [mean_interval(chunk)[1] for chunk in accuracies.reshape(100, 40)]
    covered = sum(low <= truth <= high for low, high in intervals)
    assert 88 <= covered <= 100


def test_classes_with_too_few_images_are_left_out() -> None:
    labels = np.concatenate([LABELS, [8] * 8])
    drawn = draw_episodes(labels, FIVE_WAYS, seed=0)
    assert drawn.num_classes == 8 and not (drawn.classes == 8).any()
    none = draw_episodes(LABELS, EpisodesConfig(ways=9, shots=3, queries=6, count=10), seed=0)
    assert len(none.classes) == 0
    scores = score_episodes(none, EpisodesConfig(ways=9))
    assert scores.tuned is None and scores.gain_interval is None and scores.num_classes == 8


def test_a_part_of_the_images_has_the_same_episodes() -> None:
    features, drawn = clouds(1.5), draw_episodes(LABELS, FIVE_WAYS.model_copy(update={"count": 3}), seed=1)
    chosen = np.unique(np.concatenate([drawn.support.ravel(), drawn.queries.ravel()]))
    assert len(chosen) < len(LABELS)
    np.testing.assert_array_equal(
        episode_accuracies(features[chosen], drawn.among(chosen)), episode_accuracies(features, drawn)
    )
