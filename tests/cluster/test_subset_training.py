"""What a task of a subset's model holds, and that several are trained at the same time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import class_image
from finetune_examples import a_spec, some_hyperparameters
from workbenches import random_workbench

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.subset_training import PackingPlan, train_packed
from orchestrator.cluster.training import TrainingJob, TrainingPlan, train_groups
from orchestrator.config import SourceConfig, TrainConfig
from orchestrator.data.pixels import PixelCache, write_pixels
from orchestrator.data.samples import CachedSamples
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.models import load_model
from orchestrator.records import ModelCard, SourceUse
from orchestrator.stages.sources import source_use

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


def a_companion(pixels_uri: str, source: SourceConfig) -> Companion:
    """Give the samples of the first subset as the companion that a source makes of them."""
    cached = some_cached(pixels_uri, SUBSETS[0]).train
    # A class of the source's own, or all of them one that rejects.
    own = 0 if source.as_negatives == "outlier_exposure" else len(LABELS)
    return Companion(
        samples=replace(cached, labels=np.full(8, own, dtype=np.int64)),
        num_extra=int(own > 0),
        keeps_extra=source.as_negatives == "reject",
        batch_share=source.batch_share,
        weight=source.loss_weight,
        penalty=source.penalty,
        penalty_weight=source.penalty_weight,
        is_uniform=own == 0,
    )


def a_job(name: str, tmp_path: Path, use: SourceUse | None) -> TrainingJob:
    return TrainingJob(
        group="low",
        subsets=("south",),
        hyperparameters=some_hyperparameters(freeze_depth=1, epochs=2, batch_size=4),
        fingerprint="f",
        data_fingerprint="abc",
        run_name=name,
        model_uri=str(tmp_path / name),
        storage_uri=str(tmp_path / "ray_train"),
        source=use,
    )


SOURCES = {
    "rejected": {"as_negatives": "reject"},
    "outlying": {"as_negatives": "outlier_exposure"},
    "labelled": {"penalty": "coral", "penalty_weight": 10.0, "batch_share": 0.3},
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_cluster")
def test_a_subset_beside_a_source_gets_what_a_group_of_it_alone_gets(tmp_path: Path) -> None:
    pixels, shape = str(tmp_path / "pixels"), observe_cluster(elastic=False)
    alone = some_cached(pixels, "south")
    packed, of_groups = {"alone": a_job("alone", tmp_path, None)}, {}
    samples = {"alone": alone}
    for name, counts in SOURCES.items():
        source = SourceConfig.model_validate({"uri": "/source", **counts})
        companion = a_companion(pixels, source)
        use = source_use("/source", source, companion, LABELS)
        packed[name], of_groups[name] = (a_job(run, tmp_path, use) for run in (name, f"group-{name}"))
        samples[name] = samples[f"group-{name}"] = replace(alone, companion=companion)
    # A network that workers find by themselves.
    workbench = random_workbench(a_spec("mobilenet_v2", image_size=32, width_mult=0.25))
    plan = PackingPlan.of(TrainConfig(), use_gpu=False, stall_timeout_s=100)
    of_group = TrainingPlan(
        num_workers=1,
        resources_per_worker={"CPU": 1.0},
        use_gpu=False,
        max_failures=0,
        num_to_keep=1,
        models_at_once=len(of_groups),
        stall_timeout_s=100,
    )
    trained = [
        *train_packed(list(packed.values()), samples, workbench, plan, shape),
        *train_groups(list(of_groups.values()), samples, workbench, of_group, shape),
    ]
    cards = {job.run_name: card for job, card in trained if isinstance(card, ModelCard)}
    assert len(cards) == len(trained), trained
    for name, num_outputs in {"rejected": 3, "outlying": 2, "labelled": 2}.items():
        assert cards[name].weights_digest == cards[f"group-{name}"].weights_digest
        assert cards[name].history == cards[f"group-{name}"].history
        assert load_model(str(tmp_path / name))[0].head.out_features == num_outputs
    # Each has another source beside it, or none.
    assert len({cards[name].weights_digest for name in packed}) == len(packed)
    assert load_model(str(tmp_path / "alone"))[0].head.out_features == len(LABELS)
