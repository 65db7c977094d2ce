"""Plans fit the nodes or are refused with what was wanted and what there is."""

from __future__ import annotations

import pytest

from orchestrator.cluster.resources import (
    GPU_MARGIN,
    GPU_PROCESS_BYTES,
    ClusterShape,
    distributed_trials_at_once,
    gpu_share,
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
THREE_NODES = ClusterShape(nodes=({"CPU": 2.0},) * 3)
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


@pytest.mark.parametrize(
    ("nodes", "bundle", "num_workers", "expected"),
    [
        # The trial's own process breaks one CPU, the workers take two, and the fourth is left to a data task.
        ([{"CPU": 2.0}, {"CPU": 2.0}], {"CPU": 1.0}, 2, 1),
        # Two trials could break two CPUs and take the other four.
        ([{"CPU": 2.0}] * 3, {"CPU": 1.0}, 2, 1),
        ([{"CPU": 2.0}] * 4, {"CPU": 1.0}, 2, 2),
        ([{"CPU": 2.0}], {"CPU": 0.45}, 2, 1),
        ([{"CPU": 16.0}], {"CPU": 1.0}, 4, 3),
        # Whole GPUs bound the trials, and CPUs are plenty.
        ([{"CPU": 32.0, "GPU": 8.0}], {"CPU": 1.0, "GPU": 1.0}, 4, 2),
        ([{"CPU": 8.0}, {"CPU": 8.0, "GPU": 4.0}], {"CPU": 1.0, "GPU": 1.0}, 2, 2),
    ],
)
def test_trials_with_their_workers_and_a_data_task_fit(
    nodes: list[dict[str, float]], bundle: dict[str, float], num_workers: int, expected: int
) -> None:
    shape = ClusterShape(nodes=tuple(nodes))
    assert distributed_trials_at_once(bundle, num_workers, shape, most=50) == expected
    assert distributed_trials_at_once(bundle, num_workers, shape, most=1) == 1


@pytest.mark.parametrize(
    ("nodes", "bundle", "num_workers"),
    [
        # No CPU would be left to a data task.
        ([{"CPU": 2.0}], {"CPU": 1.0}, 2),
        ([{"CPU": 3.0}], {"CPU": 1.0}, 2),
        # Enough CPUs in all, but on no node enough for a worker.
        ([{"CPU": 2.0}] * 4, {"CPU": 3.0}, 2),
        # The trial's own process could lie on a node with a CPU for each GPU, and take one away from a worker.
        ([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 2.0}], {"CPU": 1.0, "GPU": 1.0}, 2),
    ],
)
def test_a_trial_that_could_wait_for_ever_is_refused(
    nodes: list[dict[str, float]], bundle: dict[str, float], num_workers: int
) -> None:
    with pytest.raises(ResourceError, match=r"a trial of 2 workers must fit .* 1 CPU left to data tasks, got nodes"):
        distributed_trials_at_once(bundle, num_workers, ClusterShape(nodes=tuple(nodes)), most=4)


def test_an_elastic_cluster_takes_every_trial_of_several_workers() -> None:
    elastic = ClusterShape(nodes=THREE_NODES.nodes, elastic=True)
    assert distributed_trials_at_once({"GPU": 8.0}, 4, elastic, most=5) == 5


def test_trials_of_any_placement_leave_a_data_task_its_cpu() -> None:
    # Every way to lay what the plan admits onto the nodes, one piece after the other.
    shape, bundle = ClusterShape(nodes=({"CPU": 3.0}, {"CPU": 2.0}, {"CPU": 2.5})), {"CPU": 1.0}
    count = distributed_trials_at_once(bundle, 2, shape, most=5)
    placements = {tuple(node["CPU"] for node in shape.nodes)}
    for amount in [0.1] * count + [1.0] * 2 * count:
        following = {
            (*free[:place], free[place] - amount, *free[place + 1 :])
            for free in placements
            for place in range(len(free))
            if free[place] - amount > -1e-9
        }
        assert following
        # None of what came before keeps this piece from a place.
        assert all(any(room - amount > -1e-9 for room in free) for free in placements)
        placements = following
    assert all(max(free) >= 1.0 - 1e-9 for free in placements)


@pytest.mark.parametrize(
    ("peak_gib", "total_gib", "share"),
    [(1, 80, 1 / 8), (10, 80, 1 / 5), (20, 80, 1 / 3), (40, 80, 1.0), (100, 80, 1.0), (1, 4, 1.0), (1, 5, 1 / 2)],
)
def test_a_share_of_a_gpu_holds_the_peak_with_its_margin(peak_gib: int, total_gib: int, share: float) -> None:
    found = gpu_share(peak_gib * 2**30, total_gib * 2**30)
    assert found == pytest.approx(share)
    assert found == 1.0 or found * total_gib * 2**30 >= GPU_MARGIN * peak_gib * 2**30 + GPU_PROCESS_BYTES


def test_only_trials_of_one_process_share_a_gpu() -> None:
    shared = trial_resources(SearchConfig(), use_gpu=True, gpu_share=0.25)
    assert shared == {"CPU": 1.0, "GPU": 0.25}
    assert trial_resources(SearchConfig(resources_per_trial={"GPU": 1}), use_gpu=True, gpu_share=0.25)["GPU"] == 1.0
    assert trial_resources(SearchConfig(num_workers_per_trial=2), use_gpu=True, gpu_share=0.25)["GPU"] == 1.0
    assert "GPU" not in trial_resources(SearchConfig(), use_gpu=False, gpu_share=0.25)
