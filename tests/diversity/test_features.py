import numpy as np
import pytest
from diversity_examples import brute_force_vendi, identities
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.features import FeatureMoments, hash_ids
from orchestrator.diversity.vendi import unit_directions, vendi_score
from orchestrator.errors import DataError


def labels_of(ids: list[str]) -> list[str]:
    return [("cat", "dog", "fox")[int(identity.rpartition("-")[2]) % 3] for identity in ids]


def moments_of(
    features: NDArray[np.floating], ids: list[str], sample_size: int, cuts: list[int]
) -> list[FeatureMoments]:
    """Summarise the images in parts that begin at `cuts`."""
    parts = []
    for rows in np.split(np.arange(len(ids)), sorted(cuts)):
        part = FeatureMoments(sample_size)
        part.add(features[rows], hash_ids([ids[row] for row in rows]), labels_of([ids[row] for row in rows]))
        parts.append(part)
    return parts


def merged(parts: list[FeatureMoments], sample_size: int) -> FeatureMoments:
    whole = FeatureMoments(sample_size)
    for part in parts:
        whole.merge(part)
    return whole


@pytest.mark.parametrize("sample_size", [4, 1000])
def test_kept_rows_and_summed_products_give_the_same_score(sample_size: int) -> None:
    features = np.random.default_rng(0).normal(size=(60, 6))
    parts = moments_of(features, identities(60), sample_size, [3, 20, 41])
    found = vendi_score(merged(parts, sample_size).similarity_matrix())
    assert found == pytest.approx(brute_force_vendi(features), rel=1e-9)


@given(
    st.integers(1, 40),
    st.lists(st.integers(0, 40), max_size=6),
    st.integers(1, 8),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_any_sharding_in_any_order_keeps_the_same_sample_and_score(
    num_images: int, cuts: list[int], dimensions: int, sample_size: int, random
) -> None:
    features = np.random.default_rng(num_images).normal(size=(num_images, dimensions))
    ids = identities(num_images)
    parts = moments_of(features, ids, sample_size, [min(cut, num_images) for cut in cuts])
    random.shuffle(parts)
    found = merged(parts, sample_size)
    whole = merged(moments_of(features, ids, sample_size, []), sample_size)
    np.testing.assert_array_equal(found.sample(), whole.sample())
    assert found.num_images == num_images
    expected = vendi_score(whole.similarity_matrix())
    assert vendi_score(found.similarity_matrix()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sample_size", [4, 1000])
def test_sums_by_class_hold_all_images_however_they_came(sample_size: int) -> None:
    features, ids = np.random.default_rng(0).normal(size=(60, 6)), identities(60)
    found = merged(moments_of(features, ids, sample_size, [3, 20, 41]), sample_size).sums()
    expected = FeatureSums.of(unit_directions(features), labels_of(ids))
    assert found.counts == expected.counts == {"cat": 20, "dog": 20, "fox": 20}
    np.testing.assert_allclose(found.outer, expected.outer, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.class_means(), expected.class_means(), rtol=0, atol=1e-12)


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(DataError, match="1 labels"):
        FeatureMoments().add(np.zeros((2, 4)), hash_ids(["c", "d"]), ["cat"])


@pytest.mark.parametrize("dimensions", [3, 40])
def test_the_sample_is_the_images_with_the_smallest_hashes(dimensions: int) -> None:
    features, ids = np.random.default_rng(0).normal(size=(30, dimensions)), identities(30)
    (moments,) = moments_of(features, ids, 7, [])
    lowest = np.argsort(hash_ids(ids))[:7]
    np.testing.assert_array_equal(moments.sample(), unit_directions(features[lowest]))


@given(st.permutations(range(6)))
def test_images_that_share_an_identity_are_kept_whatever_their_order(order: list[int]) -> None:
    features = np.random.default_rng(0).normal(size=(6, 1)).repeat(3, axis=1)
    features[:, 1] *= np.arange(6)
    whole, shuffled = FeatureMoments(3), FeatureMoments(3)
    whole.add(features, hash_ids(["same"] * 6), ["cat"] * 6)
    for row in order:
        shuffled.add(features[[row]], hash_ids(["same"]), ["cat"])
    np.testing.assert_array_equal(whole.sample(), shuffled.sample())


def test_memory_stops_growing_with_the_number_of_images() -> None:
    moments = FeatureMoments(8)
    rng = np.random.default_rng(0)
    for block in range(50):
        moments.add(rng.normal(size=(20, 4)), hash_ids(identities(20, str(block))), ["cat"] * 20)
    assert moments.num_images == 1000
    assert len(moments.sample()) == 8
    # The sample, and what waits to be summed up.
    assert len(moments._rows) <= 8 + 8


def test_rows_wait_until_they_are_many_and_every_measure_has_them() -> None:
    features, ids = np.random.default_rng(0).normal(size=(95, 6)), identities(95)
    expected = FeatureSums.of(unit_directions(features), labels_of(ids))
    parts = moments_of(features, ids, 8, list(range(2, 95, 2)))
    found = merged(parts, 8)
    assert found._sums is not None and found._sums.num_images == 90
    np.testing.assert_allclose(found.similarity_matrix(), expected.outer / 95, rtol=0, atol=1e-12)
    assert found._sums.num_images == found.num_images == 95
    for measured in (found.sums(), merged(parts, 8).sums(), merged(parts, 8).class_sums()):
        assert measured.counts == expected.counts
        np.testing.assert_allclose(measured.class_means(), expected.class_means(), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.sample(), merged(moments_of(features, ids, 8, []), 8).sample())


def test_merging_leaves_the_parts_as_they_were() -> None:
    features = np.random.default_rng(0).normal(size=(40, 3))
    parts = moments_of(features, identities(40), 4, [20])
    before = [part.similarity_matrix().copy() for part in parts]
    merged(parts, 4)
    merged(parts, 4)
    for part, matrix in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part.similarity_matrix(), matrix)


def test_changing_features_after_adding_them_changes_nothing() -> None:
    features = np.eye(3)
    moments = FeatureMoments()
    moments.add(features, hash_ids(identities(3)), ["cat"] * 3)
    features[:] = 1.0
    assert vendi_score(moments.similarity_matrix()) == pytest.approx(3.0)


def test_hashes_of_identities_are_the_same_everywhere() -> None:
    assert hash_ids(["a", "b"]).tolist() == [15062014912167297242, 8472708637674881199]
    assert len(hash_ids([])) == 0


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (np.zeros(2), "a row of one or more numbers for each image"),
        (np.zeros((3, 4)), "a row of one or more numbers for each image"),
        (np.zeros((2, 0)), "a row of one or more numbers for each image"),
        (np.full((2, 4), np.inf), "must be finite"),
        (np.zeros((2, 5)), "must have 4 dimensions, got 5"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: NDArray[np.float64], complaint: str) -> None:
    moments = FeatureMoments()
    moments.add(np.ones((2, 4)), hash_ids(["a", "b"]), ["cat"] * 2)
    with pytest.raises(DataError, match=complaint):
        moments.add(features, hash_ids(["c", "d"]), ["cat"] * 2)


def test_no_images_have_no_moments() -> None:
    moments = FeatureMoments()
    moments.add(np.zeros((0, 4)), hash_ids([]), [])
    with pytest.raises(DataError, match="at least one image"):
        moments.similarity_matrix()
