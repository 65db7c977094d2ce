import numpy as np
import pytest

from orchestrator.diversity.source_features import SourceFeatures
from orchestrator.errors import WeightsError


def some_features(labels: list[str], *, apart: float = 5.0) -> SourceFeatures:
    """Features around a direction for each label, all of them far from zero as rectified ones are."""
    generator = np.random.default_rng(0)
    names = sorted(set(labels))
    rows = [generator.normal(size=6) + apart * np.eye(6)[names.index(label)] + 20 for label in labels]
    return SourceFeatures(features=np.asarray(rows, dtype=np.float32), labels=labels)


def test_features_come_back_from_bytes_as_they_were() -> None:
    features = some_features(["a", "", "\u00e9", "a"])
    found = SourceFeatures.from_bytes(features.to_bytes(), source="x")
    np.testing.assert_array_equal(found.features, features.features)
    assert found.features.dtype == np.float32 and list(found.labels) == ["a", "", "\u00e9", "a"]


def test_damaged_features_are_refused() -> None:
    with pytest.raises(WeightsError, match="must be whole safetensors, got x"):
        SourceFeatures.from_bytes(some_features(["a", "b"]).to_bytes()[:-4], source="x")


def test_neighbours_name_the_labels_of_features_that_lie_apart() -> None:
    assert some_features(["a", "b", "c"] * 40, apart=8).neighbour_accuracy() == pytest.approx(1.0, abs=0.02)
    chance = some_features(["a", "b", "c"] * 40, apart=0).neighbour_accuracy()
    assert chance is not None and chance < 0.6


def test_images_without_a_label_have_no_vote() -> None:
    mixed = some_features(["a", "b", "", ""] * 30, apart=8)
    assert mixed.neighbour_accuracy() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("labels", [["a", "a", "a"], ["", "", ""], ["a", "", ""]])
def test_one_label_says_nothing(labels: list[str]) -> None:
    assert some_features(labels).neighbour_accuracy() is None


def test_few_images_have_few_neighbours() -> None:
    assert some_features(["a", "b"]).neighbour_accuracy() == 0.0
