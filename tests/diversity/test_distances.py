"""Distances tell subsets and domains apart at one number of images, whatever the sizes are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.diversity.distances import (
    MOST_SUBSETS,
    Source,
    distance_to,
    measure_distances,
    own_range,
    relation,
)
from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.transferability import frechet_distance
from orchestrator.diversity.vendi import unit_directions
from orchestrator.records import Distances

Array = NDArray[np.float64]


def directions(num_images: int, *, seed: int = 0, shift: float = 0.0, dimensions: int = 12) -> Array:
    generator = np.random.default_rng(seed)
    return unit_directions(generator.normal(size=(num_images, dimensions)) + shift * np.eye(dimensions)[0])


def a_source(rows: Array, classes: tuple[str, ...] = ("cat", "dog")) -> Source:
    return Source(kind="pretraining", uri="/source", features="kept", directions=rows, classes=classes)


def measured(subsets: dict[str, Array], *sources: Source, min_images: int = 10) -> Distances:
    classes = {name: ["cat", "dog"] if name != "odd" else ["axe", "saw", "cat"] for name in subsets}
    return measure_distances(subsets, classes, sources=sources, min_images=min_images, seed=0)


def test_a_distance_is_that_of_the_sums_of_equally_many_images() -> None:
    one, other = directions(50, seed=1), directions(90, seed=2, shift=1.0)
    found = measured({"a": one, "b": other})
    expected = frechet_distance(*(FeatureSums.of(rows[:50], [""] * 50) for rows in (one, other)))
    assert found.num_images == 50 and found.subsets == ["a", "b"]
    np.testing.assert_allclose(found.between, [[0, expected], [expected, 0]], rtol=1e-6)


def test_a_size_is_no_distance() -> None:
    """Of one source, small and large subsets lie as near: without equal numbers the small one would seem far."""
    rows = {name: directions(size, seed=size) for name, size in {"a": 40, "b": 400, "c": 380}.items()}
    a, b, c = (FeatureSums.of(part, [""] * len(part)) for part in rows.values())
    assert frechet_distance(a, b) > 3 * frechet_distance(b, c)
    (_, ab, ac), (_, _, bc), _ = measured(rows).between
    assert max(ab, ac, bc) < 2 * min(ab, ac, bc)


SUBSETS = {"same": directions(60, seed=5), "far": directions(60, seed=6, shift=3.0), "odd": directions(60, seed=7)}


def test_a_subset_without_any_class_shares_no_task() -> None:
    assert relation(0.1, 1.0, set(), {"cat"}) == "same domain, another task"


def test_subsets_of_the_source_are_its_domain_and_shifted_ones_are_not() -> None:
    found = measured(SUBSETS, a_source(directions(256, seed=8)))
    (source,) = found.sources
    assert {near.subset: near.relation for near in source.subsets} == {
        "same": "same domain, same task",
        "far": "another domain, same task",
        "odd": "same domain, another task",
    }
    assert [near.shared_classes for near in source.subsets] == [2, 2, 1]
    assert source.own_range == own_range(directions(256, seed=8), 60, seed=0)
    assert (source.kind, source.uri, source.features, source.classes) == (
        "pretraining", "/source", "kept", ["cat", "dog"],
    )  # fmt: skip


def test_every_source_is_compared_by_itself() -> None:
    large, small = a_source(directions(256, seed=8)), a_source(directions(40, seed=9), classes=())
    both = measured(SUBSETS, large, small)
    assert both.sources == [*measured(SUBSETS, large).sources, *measured(SUBSETS, small).sources]
    assert both.between == measured(SUBSETS).between
    assert [source.num_images for source in both.sources] == [60, 20]
    assert [near.relation for near in both.sources[1].subsets] == ["same domain", "another domain", "same domain"]


def test_a_source_of_few_images_counts_as_none() -> None:
    assert measured(SUBSETS, a_source(directions(15))).sources == []
    assert measured({}, a_source(directions(40))).sources == []


def test_most_samples_of_the_source_seem_to_be_of_its_domain() -> None:
    source = directions(600, dimensions=5)
    own = own_range(source, 40, seed=1)
    drawn = [distance_to(source, directions(40, seed=seed, dimensions=5), seed=1) for seed in range(100, 130)]
    assert 0.8 <= np.mean(np.array(drawn) <= own) <= 1.0


@pytest.mark.parametrize(
    ("distance", "classes", "named"),
    [
        (1.0, {"a", "b"}, "same domain, same task"),
        (1.0, {"a", "x", "y"}, "same domain, another task"),
        (3.0, {"a", "x"}, "another domain, same task"),
        (3.0, {"x"}, "another domain, another task"),
    ],
)
def test_relations_are_named_by_distance_and_overlap(distance: float, classes: set[str], named: str) -> None:
    assert relation(distance, 2.0, classes, {"a", "b"}) == named


def test_subsets_too_small_to_compare_have_no_distance() -> None:
    found = measured({"a": directions(4), "b": directions(50), "c": directions(60)})
    assert found.num_images == 50 and found.subsets == ["b", "c"]
    assert measured({}).subsets == [] and measured({"a": directions(1)}).between == []


def test_the_matrix_is_bounded() -> None:
    few = {str(number): directions(12, seed=number) for number in range(MOST_SUBSETS + 1)}
    assert (
        measured(few).between == []
        and len(measured(few, a_source(directions(40))).sources[0].subsets) == MOST_SUBSETS + 1
    )
