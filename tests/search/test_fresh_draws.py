import pytest

from orchestrator.config import FineTuneConfig, SpaceConfig
from orchestrator.search.fresh_draws import share_kept
from orchestrator.search.space import SearchSpace


@pytest.mark.parametrize(
    ("searched", "share"),
    [
        ({}, 1.0),
        ({"magnitude": [5, 10], "randaugment": [0, 2]}, 0.5),
        ({"flip": [False, True], "crop": [0.0, 0.1, 0.2]}, 1 / 6),
        ({"randaugment": {"low": 0, "high": 3}}, 0.25),
        ({"randaugment": {"low": 1, "high": 3}}, 0.0),
        ({"colour": {"low": 0.0, "high": 0.4}}, 0.0),
        ({"colour": {"low": 0.0, "high": 0.0}}, 1.0),
        ({"mixing": ["none", "mixup"], "flip": [False]}, 1.0),
    ],
)
def test_kept_activations_serve_the_configurations_that_vary_nothing(searched: dict[str, object], share: float) -> None:
    space = SearchSpace.from_config(SpaceConfig.model_validate(searched), 5)
    assert share_kept(space) == pytest.approx(share)


def test_kept_activations_serve_nothing_where_images_are_always_changed() -> None:
    assert share_kept(SearchSpace.from_config(SpaceConfig(), 5, FineTuneConfig(mixing="mixup"))) == 0.0
