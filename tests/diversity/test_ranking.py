"""Backbones are ranked by what their features say of the classes; what cannot be told apart goes to the cheaper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.diversity.ranking import (
    SubsetSample,
    half_samples,
    mean_ranks,
    rank_candidates,
    score_candidate,
)
from orchestrator.errors import DataError
from orchestrator.records import BackboneRanking, CandidateMeasures

Array = NDArray[np.float64]
CLASSES = ("cat", "dog", "fox")


def two_subsets(num_images: int = 60) -> list[SubsetSample]:
    labels = [CLASSES[index % 3] for index in range(num_images)]
    sizes = {"field": 200, "town": 100}
    return [
        SubsetSample(subset=name, rows=np.arange(num_images) + place * num_images, labels=labels, num_images=size)
        for place, (name, size) in enumerate(sizes.items())
    ]


def features_that_tell(apart: float, *, seed: int = 0, dimensions: int = 20, num_images: int = 60) -> Array:
    """Draw features of both subsets, the means of whose classes lie `apart`."""
    generator = np.random.default_rng(seed)
    classes = np.tile(np.arange(num_images) % 3, 2)
    means = apart * generator.normal(size=(3, dimensions))
    return means[classes] + generator.normal(size=(2 * num_images, dimensions))


def measures_of(title: str, features: Array, flops: int = 100) -> CandidateMeasures:
    return CandidateMeasures(
        title=title,
        parameters=10,
        forward_flops=flops,
        images_per_second=5.0,
        feature_dim=features.shape[1],
        subsets=score_candidate(features, two_subsets(), seed=0),
        seconds=0.0,
    )


def ranking_of(*measured: CandidateMeasures) -> BackboneRanking:
    return rank_candidates(measured)


def test_features_that_tell_the_classes_apart_rank_first_whatever_they_cost() -> None:
    ranking = ranking_of(
        measures_of("blind", features_that_tell(0.0), flops=1),
        measures_of("sharp", features_that_tell(2.0), flops=1000),
        measures_of("dim", features_that_tell(0.7), flops=10),
    )
    assert [candidate.title for candidate in ranking.candidates] == ["sharp", "dim", "blind"]
    assert [candidate.mean_rank for candidate in ranking.candidates] == [1.0, 2.0, 3.0]
    assert ranking.chosen == "sharp" and ranking.candidates[0].win_share == 1.0
    assert [candidate.is_equal_to_first for candidate in ranking.candidates] == [True, False, False]
    assert "every other is clearly behind" in ranking.reason


def test_of_candidates_that_cannot_be_told_apart_the_cheapest_is_chosen() -> None:
    alike = [measures_of(f"seed {seed}", features_that_tell(1.0, seed=seed), 1000 - seed) for seed in range(3)]
    ranking = ranking_of(*alike, measures_of("blind", features_that_tell(0.0), flops=1))
    equal = {candidate.title for candidate in ranking.candidates if candidate.is_equal_to_first}
    assert "blind" not in equal and len(equal) > 1
    assert ranking.chosen == max(equal)
    assert sum(candidate.win_share for candidate in ranking.candidates) == pytest.approx(1.0)


def test_more_dimensions_of_noise_are_no_advantage() -> None:
    sharp, generator = features_that_tell(1.0), np.random.default_rng(1)
    padded = np.hstack([sharp, generator.normal(size=(len(sharp), 200))])
    assert ranking_of(measures_of("padded", padded, 1), measures_of("sharp", sharp, 9)).chosen == "sharp"


def test_a_subset_counts_by_its_training_images() -> None:
    sharp, blind = features_that_tell(2.0), features_that_tell(0.0)
    halves = (
        measures_of("field", np.vstack([sharp[:60], blind[60:]])),
        measures_of("town", np.vstack([blind[:60], sharp[60:]])),
    )
    ranking = ranking_of(*halves)
    assert [candidate.title for candidate in ranking.candidates] == ["field", "town"]
    assert [candidate.mean_rank for candidate in ranking.candidates] == pytest.approx([4 / 3, 5 / 3])
    assert ranking.candidates[0].subsets[0].rank == 1.0 and ranking.candidates[0].subsets[1].rank == 2.0


def test_subsets_of_one_class_say_nothing_and_are_left_out() -> None:
    single = SubsetSample(subset="sea", rows=np.arange(9), labels=["cat"] * 9, num_images=9)
    features = features_that_tell(1.0)
    found = score_candidate(features, [single, *two_subsets()], seed=0)
    assert [scores.subset for scores in found] == ["field", "town"]
    alone = measures_of("one", features).model_copy(update={"subsets": []})
    with pytest.raises(DataError, match="two classes"):
        ranking_of(alone)


def test_a_lone_candidate_is_chosen() -> None:
    ranking = ranking_of(measures_of("one", features_that_tell(0.5)))
    assert ranking.chosen == "one" and ranking.candidates[0].gap_interval is None


def test_scores_do_not_change_when_other_subsets_come_or_go() -> None:
    features, subsets = features_that_tell(1.0), two_subsets()
    assert score_candidate(features, subsets, seed=4)[1:] == score_candidate(features, subsets[1:], seed=4)
    assert score_candidate(features, subsets, seed=4) != score_candidate(features, subsets, seed=5)


@given(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=40), st.integers(0, 2**32))
def test_halves_hold_half_of_every_class_once(labels: list[str], seed: int) -> None:
    for half in half_samples(labels, seed=seed, count=3):
        assert len(set(half.tolist())) == len(half) and half.tolist() == sorted(half.tolist())
        drawn = [labels[index] for index in half]
        assert {name: drawn.count(name) for name in set(labels)} == {
            name: (labels.count(name) + 1) // 2 for name in set(labels)
        }


def test_halves_spread_as_fresh_samples_do() -> None:
    """A mean over 200 values: over random halves its deviation is that of the mean itself."""
    values = np.random.default_rng(0).normal(size=200)
    means = [values[half].mean() for half in half_samples(["cat"] * 200, seed=1, count=400)]
    assert np.std(means) == pytest.approx(values.std() / np.sqrt(200), rel=0.15)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 6))
def test_mean_ranks_add_up_and_do_not_depend_on_the_scale(seed: int, subsets: int, candidates: int) -> None:
    generator = np.random.default_rng(seed)
    scores, weights = generator.normal(size=(subsets, candidates)), generator.uniform(1, 9, size=subsets)
    ranks = mean_ranks(scores, weights)
    assert ranks.sum() == pytest.approx(candidates * (candidates + 1) / 2)
    np.testing.assert_allclose(mean_ranks(np.exp(3 * scores), weights), ranks)
