"""How far off a measure may be does not depend on how far it can go."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from diversity_examples import a_profile

from orchestrator.config import GroupingConfig
from orchestrator.diversity.category_counts import count_rows
from orchestrator.diversity.grouping import group_subsets
from orchestrator.diversity.measures import deviations_of
from orchestrator.diversity.profiling import ProfileSettings, finish
from orchestrator.records import Profile

CLASSES = [f"class-{index}" for index in range(10)]


def even_profile(num_subsets: int, num_images: int, *, seed: int) -> Profile:
    """Measure subsets that are drawn from one source with ten equally frequent classes."""
    generator = np.random.default_rng(seed)
    subsets = [f"s{index}" for index in range(num_subsets) for _ in range(num_images)]
    labels = generator.choice(CLASSES, size=len(subsets)).tolist()
    settings = ProfileSettings(num_labels=10, measures=("label_entropy",), split="train", min_images=10, seed=0)
    return finish(count_rows(pa.table({"subset": subsets, "label": labels})), {}, settings)


def test_subsets_at_the_greatest_entropy_are_not_taken_for_exact() -> None:
    profile = even_profile(5, 1000, seed=0)
    deviations = deviations_of(profile.subsets, ["label_entropy"])
    assert deviations is not None and np.all(deviations > 1e-3)
    for subset in profile.subsets:
        assert subset.label_entropy_interval is not None
        low, high = subset.label_entropy_interval
        assert low < subset.label_entropy <= high == pytest.approx(np.log(10))


def test_subsets_of_one_source_are_called_different_no_more_often_than_the_test_says() -> None:
    found = [
        group_subsets(even_profile(5, 1000, seed=seed), GroupingConfig(num_groups=2), ["label_entropy"])
        for seed in range(40)
    ]
    different = [groups.difference_p_value for groups in found if (groups.difference_p_value or 0.0) <= 0.05]
    assert len(different) <= 4


def test_thresholds_do_not_move_when_a_group_is_empty_in_a_redraw() -> None:
    profile = a_profile([0.5, 0.6, 1.02, 2.5], reach=0.1)
    config = GroupingConfig(method="thresholds", thresholds=[1.0, 2.0])
    groups = group_subsets(profile, config, ["label_entropy"])
    assert groups.groups[-1].stability["s03"] == 1.0
    assert groups.groups[1].stability["s02"] < 0.95
