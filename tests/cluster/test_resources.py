"""Plans fit the nodes or are refused with what was wanted and what there is."""

from __future__ import annotations

import pytest

from orchestrator.cluster.resources import (
    ClusterShape,
    models_at_once,
    require_fit,
    slots,
    trial_resources,
    uses_gpu,
    worker_resources,
)
from orchestrator.config import SearchConfig, TrainConfig
from orchestrator.errors import ConfigError, ResourceError

TWO_NODES = ClusterShape(nodes=({"CPU": 2.0}, {"CPU": 2.0}))
GPU_NODES = ClusterShape(nodes=({"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}))


def test_slots_do_not_straddle_nodes() -> None:
    assert slots({"CPU": 1.5}, TWO_NODES) == 2
    assert slots({"CPU": 3.0}, TWO_NODES) == 0


def test_slots_count_fractions_exactly() -> None:
    assert slots({"CPU": 0.1}, ClusterShape(nodes=({"CPU": 0.3},))) == 3


def test_a_plan_that_is_too_large_names_what_was_wanted_and_what_there_is() -> None:
    with pytest.raises(ResourceError, match=r"wanted 3 x 2 CPU, got nodes with 2 CPU; 2 CPU\. Lower train") as caught:
        require_fit({"CPU": 2.0}, 3, TWO_NODES, what="3 training workers", remedy="Lower train.num_workers.")
    assert "3 training workers must fit the cluster" in str(caught.value)


def test_an_elastic_cluster_may_grow_to_fit() -> None:
    elastic = ClusterShape(nodes=TWO_NODES.nodes, elastic=True)
    require_fit({"GPU": 1.0}, 16, elastic, what="training", remedy="")


@pytest.mark.parametrize(("setting", "expected"), [("auto", True), (False, False), (True, True)])
def test_auto_uses_gpus_where_there_are_some(setting: bool | str, expected: bool) -> None:
    assert uses_gpu(TrainConfig.model_validate({"use_gpu": setting}), GPU_NODES) is expected
    assert uses_gpu(TrainConfig(), TWO_NODES) is False


def test_trial_resources_default_to_one_device_and_yield_to_the_experiment() -> None:
    assert trial_resources(SearchConfig(), use_gpu=False) == {"CPU": 1.0}
    assert trial_resources(SearchConfig(resources_per_trial={"GPU": 0.5}), use_gpu=True) == {
        "CPU": 1.0,
        "GPU": 0.5,
    }


@pytest.mark.parametrize(
    ("num_workers", "num_groups", "streaming", "cpus"),
    [(1, 1, False, 2.0), (1, 3, False, 1.0), (2, 1, False, 2.0), (2, 1, True, 1.0), (4, 1, True, 0.5)],
)
def test_workers_share_the_cpus_and_streaming_leaves_one_for_reading(
    num_workers: int, num_groups: int, streaming: bool, cpus: float
) -> None:
    train = TrainConfig(num_workers=num_workers)
    shares = worker_resources(train, TWO_NODES, use_gpu=False, streaming=streaming, num_groups=num_groups)
    assert shares == {"CPU": cpus}
    reserved = cpus * num_workers + (1.0 if streaming else 0.0)
    assert reserved <= TWO_NODES.total("CPU")
    assert slots(shares, TWO_NODES) >= num_workers


@pytest.mark.parametrize(("streaming", "expected"), [(False, 2), (True, 1)])
def test_models_that_stream_leave_a_cpu_free_however_many_wait(streaming: bool, expected: int) -> None:
    at_once = models_at_once({"CPU": 1.0}, 2, TWO_NODES, streaming=streaming, num_models=5)
    assert at_once == expected


def test_auto_cannot_be_told_from_nodes_that_are_not_there_yet() -> None:
    empty = ClusterShape(nodes=({"CPU": 4.0},), elastic=True)
    with pytest.raises(ConfigError, match=r"Set train\.use_gpu"):
        uses_gpu(TrainConfig(), empty)
    assert uses_gpu(TrainConfig(use_gpu=True), empty) is True
