from orchestrator.cluster.subset_training import PackingPlan
from orchestrator.config import TrainConfig


def resources(use_gpu: bool, **train: object) -> dict[str, float]:
    plan = PackingPlan.of(TrainConfig.model_validate(train), use_gpu=use_gpu, stall_timeout_s=60)
    assert plan.uses_gpu == (plan.resources.get("GPU", 0) > 0)
    return plan.resources


def test_a_task_has_one_cpu_and_where_there_are_any_a_gpu() -> None:
    assert resources(use_gpu=False) == {"CPU": 1.0}
    assert resources(use_gpu=True) == {"CPU": 1.0, "GPU": 1.0}


def test_what_the_experiment_gives_a_worker_packs_several_on_a_gpu() -> None:
    assert resources(use_gpu=True, resources_per_worker={"GPU": 0.25}) == {"CPU": 1.0, "GPU": 0.25}
    assert resources(use_gpu=False, resources_per_worker={"CPU": 2, "disk": 1}) == {"CPU": 2.0, "disk": 1.0}
