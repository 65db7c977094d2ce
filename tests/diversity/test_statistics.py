import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from diversity_examples import identities, random_partials
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diversity.entropy import histogram_entropy
from orchestrator.diversity.statistics import ImageMeasures, PartialProfile, SubsetStatistics, merge_partials
from orchestrator.errors import DataError


def bits_of(statistics: SubsetStatistics) -> tuple[object, ...]:
    return (
        statistics.num_histograms,
        statistics.pixel_entropy_sum.hex(),
        statistics.features.num_images,
        statistics.features.similarity_matrix().tobytes(),
        statistics.features.sample().tobytes(),
    )


@given(st.permutations(range(8)), st.integers(0, 5))
def test_any_order_of_arrival_gives_the_same_bits(order: list[int], seed: int) -> None:
    partials = random_partials(8, seed)
    in_order = merge_partials(partials)
    shuffled = merge_partials(partials[key] for key in order)
    assert list(shuffled) == list(in_order) == sorted(in_order)
    for subset, statistics in in_order.items():
        assert bits_of(shuffled[subset]) == bits_of(statistics)


@given(st.permutations([3, 10, 11, 40]))
def test_keys_with_gaps_merge_in_ascending_order_too(keys: list[int]) -> None:
    def one(key: int) -> PartialProfile:
        partial = PartialProfile(key=key)
        partial.add_histograms("a", np.random.default_rng(key).integers(0, 9, size=(3, 256)))
        return partial

    expected = 0.0
    for key in sorted(keys):
        expected += one(key).subsets["a"].pixel_entropy_sum
    assert merge_partials([one(key) for key in keys])["a"].pixel_entropy_sum == expected


def test_an_iterator_is_merged_as_it_comes() -> None:
    alive = []

    class Tracked(PartialProfile):
        def __init__(self, *, key: int) -> None:
            super().__init__(key=key)
            alive.append(key)

        def __del__(self) -> None:
            alive.remove(self.key)

    def arrivals() -> Iterator[PartialProfile]:
        for key in [1, 0, 2, 4, 3, 5]:
            assert len(alive) <= 2
            yield Tracked(key=key)

    merge_partials(arrivals())


def test_statistics_add_up_over_tasks() -> None:
    histograms = np.random.default_rng(0).integers(0, 9, size=(4, 256))
    first, second = PartialProfile(key=0), PartialProfile(key=1)
    first.add_histograms("a", histograms[:1])
    second.add_histograms("a", histograms[1:])
    second.add_features("b", np.ones((1, 3)), identities(1), ["cat"])
    merged = merge_partials([second, first])
    assert merged["a"].num_histograms == 4
    assert merged["a"].pixel_entropy_sum == pytest.approx(histogram_entropy(histograms).sum())
    assert merged["b"].features.num_images == 1


def test_merging_twice_gives_the_same_result() -> None:
    partials = random_partials(4)
    first = {subset: bits_of(statistics) for subset, statistics in merge_partials(partials).items()}
    second = {subset: bits_of(statistics) for subset, statistics in merge_partials(partials).items()}
    assert first == second


def test_partial_profiles_survive_pickling() -> None:
    partial = random_partials(1)[0]
    copy = pickle.loads(pickle.dumps(partial))
    assert copy.key == partial.key
    for subset, statistics in partial.subsets.items():
        assert bits_of(copy.subsets[subset]) == bits_of(statistics)


@pytest.mark.parametrize("keys", [[0, 0], [2, 2], [0, 1, 0], [-1]])
def test_a_key_that_comes_twice_is_refused(keys: list[int]) -> None:
    with pytest.raises(DataError, match="distinct keys from 0"):
        merge_partials([PartialProfile(key=key) for key in keys])


@given(st.permutations(range(4)), st.integers(0, 3))
def test_blocks_that_tasks_merged_give_the_same_bits_in_any_order_and_what_single_blocks_give(
    order: list[int], seed: int
) -> None:
    blocks = random_partials(8, seed)
    runs = [PartialProfile(key=key) for key in range(4)]
    for key, block in enumerate(blocks):
        runs[key // 2].merge(block)
    in_order, single = merge_partials(runs), merge_partials(blocks)
    shuffled = merge_partials(runs[key] for key in order)
    assert list(shuffled) == list(in_order) == list(single)
    for subset, statistics in in_order.items():
        assert bits_of(shuffled[subset]) == bits_of(statistics)
        assert statistics.num_histograms == single[subset].num_histograms
        assert statistics.pixel_entropy_sum == pytest.approx(single[subset].pixel_entropy_sum, rel=1e-12)
        np.testing.assert_array_equal(statistics.features.sample(), single[subset].features.sample())
        np.testing.assert_allclose(
            statistics.features.similarity_matrix(), single[subset].features.similarity_matrix(), rtol=0, atol=1e-12
        )


def a_block(**changes: object) -> ImageMeasures:
    rng = np.random.default_rng(0)
    base = {"pixel_entropies": rng.random(6), "features": rng.random((6, 4)).astype(np.float32)}
    return ImageMeasures(**{**base, **changes})


@pytest.mark.parametrize("absent", [(), ("features",), ("pixel_entropies",), ("features", "pixel_entropies")])
def test_measures_of_images_survive_writing_bit_by_bit(absent: tuple[str, ...]) -> None:
    images = a_block(**dict.fromkeys(absent))
    copy = ImageMeasures.from_bytes(images.to_bytes())
    for name in ("pixel_entropies", "features"):
        before, after = getattr(images, name), getattr(copy, name)
        assert (before is None) == (after is None) == (name in absent)
        if before is not None:
            assert (after.dtype, after.tobytes()) == (before.dtype, before.tobytes())


def test_a_block_sums_up_like_its_subsets_one_by_one() -> None:
    images, ids = a_block(), identities(6)
    subsets, labels = ["b", "a", "b", "b", "a", "a"], ["cat", "dog", "cat", "fox", "dog", "dog"]
    block = PartialProfile.of_block(key=3, subsets=subsets, labels=labels, ids=ids, images=images)
    expected = PartialProfile(key=3)
    for subset, members in (("a", [1, 4, 5]), ("b", [0, 2, 3])):
        expected.add_pixel_entropies(subset, images.pixel_entropies[members])
        expected.add_features(subset, images.features[members], [ids[i] for i in members], [labels[i] for i in members])
    assert block.key == 3
    assert list(block.subsets) == ["a", "b"]
    for subset, statistics in expected.subsets.items():
        assert bits_of(block.subsets[subset]) == bits_of(statistics)
