"""What a task of a subset's model holds, and that several are trained at the same time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import class_image
from finetune_examples import a_spec, some_hyperparameters
from workbenches import random_workbench

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.subset_training import PackingPlan, train_packed
from orchestrator.cluster.training import TrainingJob
from orchestrator.config import TrainConfig
from orchestrator.data.pixels import PixelCache, write_pixels
from orchestrator.data.samples import CachedSamples
from orchestrator.records import ModelCard

SUBSETS = ("north", "south")
LABELS = ("circle", "stripe")


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


def some_cached(pixels_uri: str, subset: str) -> GroupSamples:
    """Write eight images to the pixel cache, and give them as both the training and the validation samples."""
    rng = np.random.default_rng(len(subset))
    images = np.stack([class_image(LABELS[number % 2], rng, 32) for number in range(8)])
    write_pixels(pixels_uri, SUBSETS.index(subset), images)
    shards, rows = np.full(8, SUBSETS.index(subset), dtype=np.int32), np.arange(8, dtype=np.int32)
    samples = CachedSamples(
        labels=np.arange(8, dtype=np.int64) % 2,
        keys=np.arange(8, dtype=np.uint64),
        pixels=PixelCache.open(pixels_uri, shards, rows),
    )
    return GroupSamples(group="low", classes=LABELS, train=samples, validation=samples)


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("ray_cluster")
def test_models_of_subsets_are_trained_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    meeting = tmp_path / "meeting"
    name = "tests.cluster.meeting_network:meeting_backbone"
    workbench = random_workbench(a_spec(name, image_size=32, folder=str(meeting), count=len(SUBSETS)))
    meeting.mkdir()
    jobs = [
        TrainingJob(
            group="low",
            subsets=(subset,),
            hyperparameters=some_hyperparameters(freeze_depth=1, epochs=2),
            fingerprint=subset,
            data_fingerprint="abc",
            run_name=subset,
            model_uri=str(tmp_path / subset),
            storage_uri=str(tmp_path / "unused"),
        )
        for subset in SUBSETS
    ]
    samples = {subset: some_cached(str(tmp_path / "pixels"), subset) for subset in SUBSETS}
    plan = PackingPlan.of(TrainConfig(), use_gpu=False, stall_timeout_s=100)
    cards = [card for _, card in train_packed(jobs, samples, workbench, plan, observe_cluster(elastic=False))]
    # One after the other the first would have waited in vain for the second.
    assert all(isinstance(card, ModelCard) for card in cards), cards
    assert sorted(card.subsets[0] for card in cards if isinstance(card, ModelCard)) == list(SUBSETS)
    assert len(list(meeting.iterdir())) == len(SUBSETS)
