import pytest

from orchestrator.search.sharing import reason_to_share

LARGE = {"num_subsets": 3, "num_train": 40, "num_validation": 9, "num_classes": 2, "min_images": 10}


def test_a_subset_with_enough_of_everything_gets_a_model_of_its_own() -> None:
    assert reason_to_share(**LARGE) is None
    assert reason_to_share(**{**LARGE, "num_train": 10}) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_subsets": 1}, "only subset"),
        ({"num_train": 9}, "9 training images, below grouping.min_images = 10"),
        ({"num_train": 0, "min_images": 0}, "0 training images"),
        ({"num_validation": 0}, "no validation images"),
        ({"num_classes": 1}, "one class"),
    ],
)
def test_what_a_subset_lacks_is_the_reason_to_share(change: dict[str, int], reason: str) -> None:
    found = reason_to_share(**{**LARGE, **change})
    assert found is not None and reason in found
