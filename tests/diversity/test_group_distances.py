"""A group lies from a source as its images do, whatever the sizes of its subsets' samples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.diversity.distances import own_range
from orchestrator.diversity.group_distances import SubsetRows, measure_group_distances
from orchestrator.diversity.vendi import unit_directions
from orchestrator.records import GroupDistance, SourceDistances

Array = NDArray[np.float64]
NUM_IMAGES = 40


def directions(num_images: int, *, seed: int, shift: float = 0.0) -> Array:
    generator = np.random.default_rng(seed)
    return unit_directions(generator.normal(size=(num_images, 8)) + shift * np.eye(8)[0])


def rows(num_images: int, classes: list[str], **options: float) -> SubsetRows:
    drawn = directions(100, seed=int(options.pop("seed", 1)), shift=options.get("shift", 0.0))
    return SubsetRows(directions=drawn, num_images=num_images, classes=classes)


SOURCE = directions(400, seed=9)
NEAR, FAR = rows(900, ["cat"]), rows(100, ["axe", "saw"], shift=4.0)


def measured(groups: dict[str, list[str]], **subsets: SubsetRows) -> dict[str, GroupDistance]:
    found = SourceDistances(
        kind="joint training",
        uri="/source",
        classes=["cat", "dog"],
        features="kept",
        num_images=NUM_IMAGES,
        own_range=own_range(SOURCE, NUM_IMAGES, seed=0),
        subsets=[],
    )
    distances = measure_group_distances(groups, subsets, found, SOURCE, seed=0)
    return {distance.group: distance for distance in distances}


def test_groups_are_related_by_all_their_images_and_classes() -> None:
    found = measured({"low": ["near"], "high": ["far"], "both": ["near", "far"]}, near=NEAR, far=FAR)
    assert {name: group.relation for name, group in found.items()} == {
        "low": "same domain, same task",
        "high": "another domain, another task",
        # A tenth of its images lie elsewhere: most of its samples are still like the source's.
        "both": "same domain, another task",
    }
    assert found["low"].distance < found["both"].distance < found["high"].distance
    assert (found["both"].shared_classes, found["both"].num_classes) == (1, 3)


def test_a_subset_weighs_by_its_images_and_not_by_those_that_were_measured() -> None:
    mostly_near = measured({"all": ["near", "far"]}, near=NEAR, far=FAR)["all"]
    few = SubsetRows(directions=FAR.directions[:20], num_images=100, classes=FAR.classes)
    assert measured({"all": ["near", "far"]}, near=NEAR, far=few)["all"].distance == pytest.approx(
        mostly_near.distance, rel=0.25
    )
    many = SubsetRows(directions=FAR.directions, num_images=9000, classes=FAR.classes)
    assert measured({"all": ["near", "far"]}, near=NEAR, far=many)["all"].distance > 3 * mostly_near.distance


def test_groups_of_too_few_measured_images_have_no_distance() -> None:
    small = SubsetRows(directions=NEAR.directions[: NUM_IMAGES - 1], num_images=500, classes=["cat"])
    found = measured(
        {"few": ["small"], "unknown": ["elsewhere"], "some": ["near", "elsewhere"]}, near=NEAR, small=small
    )
    assert list(found) == ["some"]
    assert found == measured({"some": ["near"]}, near=NEAR)
