"""Ray's wrapped errors come out as the project's own."""

from __future__ import annotations

import pytest
import ray

from orchestrator.cluster.failures import translated
from orchestrator.errors import BackboneError, TrainingError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_an_error_of_the_project_keeps_its_type_and_words_across_processes() -> None:
    def fail() -> None:
        raise BackboneError("freeze_depth must be at most 6 for mobilenet_v2", value=7, remedy="Lower it.")

    with pytest.raises(BackboneError) as caught, translated("a task"):
        ray.get(ray.remote(fail).remote())
    assert type(caught.value) is BackboneError
    assert str(caught.value) == "freeze_depth must be at most 6 for mobilenet_v2, got 7. Lower it."


def test_a_foreign_error_is_named_with_its_last_line() -> None:
    def fail() -> None:
        raise ZeroDivisionError("division by zero")

    with (
        pytest.raises(TrainingError, match=r"a task must not fail, got .*division by zero"),
        translated("a task"),
    ):
        ray.get(ray.remote(fail).remote())


def test_an_error_in_a_data_pass_is_named_and_not_the_advice_behind_it() -> None:
    def fail(batch: object) -> object:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(TrainingError) as caught, translated("a pass"):
        ray.data.range(2).map_batches(fail).take_all()
    assert str(caught.value).startswith("a pass must not fail, got ZeroDivisionError: division by zero. ")
