"""Trains the arms that transfer is judged by as single-process Ray tasks, and has each answer on the spot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray

from orchestrator import storage
from orchestrator.cluster.baselines import right_answers
from orchestrator.cluster.equal_cost import Rival, measure_epoch_cost
from orchestrator.cluster.failures import translate
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape, require_fit
from orchestrator.cluster.tasks import as_task
from orchestrator.cluster.training import ModelJob, describe_model
from orchestrator.cluster.watchdog import Watchdog, gather, start_progress
from orchestrator.cluster.workers import Workbench, use_threads, worker_device
from orchestrator.data.reader import PixelReader
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.loop import EpochEnd
from orchestrator.finetune.models import save_model
from orchestrator.records import Answers, ArmName, ArmResult, Hyperparameters, TaskClasses
from orchestrator.search.arms import affordable_epochs

ARM_VERSION = 2

Material = tuple[str | None, str | None]
"""A group and a subset; None for all of them."""


@dataclass(frozen=True, kw_only=True)
class ArmMaterial:
    """Hold what an arm learns from, and numbered catalogue rows that it answers, in blocks of one fragment each.

    `rival_images` counts the training images of the rival, whose cost an arm shall have: more than `samples` has where
    it streams those that are not cached. `rival_companion` is what it is trained together with, streamed or held.
    """

    samples: GroupSamples
    subsets: tuple[str, ...]
    data_fingerprint: str
    rows: Mapping[Literal["val", "test"], Sequence[pa.Table]]
    rival_images: int
    rival_companion: Companion | None = None
    rival_streams_source: bool = False


@dataclass(frozen=True, kw_only=True)
class ArmJob:
    """Hold one arm to train, which tells `classes` apart, by the heads of `tasks` where there are any.

    With `rival` the epochs are found on the spot: as many as take what the rival's `hyperparameters.epochs` have taken.
    `model_path` below `run_uri` receives the model, where it is to be kept.
    """

    material: Material
    name: ArmName
    classes: tuple[str, ...]
    hyperparameters: Hyperparameters
    fingerprint: str
    run_uri: str
    rival: Hyperparameters | None = None
    model_path: str | None = None
    tasks: tuple[TaskClasses, ...] = ()


def run_arms(
    jobs: Sequence[ArmJob],
    materials: Mapping[Material, ArmMaterial],
    workbench: Workbench,
    reader: PixelReader,
    resources: Mapping[str, float],
    shape: ClusterShape,
    *,
    stall_timeout_s: float,
) -> Iterator[tuple[ArmJob, ArmResult]]:
    """Train the arms, as many at a time as fit, and give their answers; one that fails is a result with its error."""
    if not jobs:
        return
    require_fit(resources, 1, shape, what="one arm", remedy="Lower search.resources_per_trial.")
    progress = start_progress()
    shared = {job.material: ray.put(materials[job.material]) for job in jobs}
    task = as_task(_run, resources)
    # The longest first, so that none is left to run alone at the end.
    ordered = sorted(jobs, key=lambda job: -len(materials[job.material].samples.train) * job.hyperparameters.epochs)
    submissions = [
        partial(task.remote, job, shared[job.material], workbench, reader, dict(resources), progress) for job in ordered
    ]
    with Watchdog("the arms", wanted=resources, stall_timeout_s=stall_timeout_s) as watchdog:
        for index, outcome in gather(submissions, progress=progress, watchdog=watchdog):
            yield ordered[index], _read_outcome(ordered[index], outcome)


def failed_arm(
    job: ArmJob, error: str, *, seconds: float = 0.0, resources: Mapping[str, float] | None = None
) -> ArmResult:
    """Give the result of an arm that could not be trained."""
    group, subset = job.material
    return ArmResult(
        fingerprint=job.fingerprint,
        group=group,
        subset=subset,
        name=job.name,
        hyperparameters=job.hyperparameters,
        seconds=seconds,
        error=error,
        resources=dict(resources or {}),
        answers={},
    )


def _read_outcome(job: ArmJob, outcome: str | Exception) -> ArmResult:
    if isinstance(outcome, Exception):
        return failed_arm(job, str(translate(outcome, "an arm")))
    return ArmResult.from_json(outcome, source="an arm")


def _run(
    job: ArmJob,
    material: ArmMaterial,
    workbench: Workbench,
    reader: PixelReader,
    resources: dict[str, float],
    progress: Any,
) -> str:
    use_threads(resources.get("CPU", 1.0))
    started = time.perf_counter()
    try:
        return _train_and_answer(job, material, workbench, reader, resources, progress).to_json()
    except Exception as failure:  # whatever ends an arm is its result
        error = f"{type(failure).__name__}: {failure}"
        seconds = time.perf_counter() - started
        return failed_arm(job, error, seconds=seconds, resources=resources).to_json()


def _train_and_answer(
    job: ArmJob,
    material: ArmMaterial,
    workbench: Workbench,
    reader: PixelReader,
    resources: dict[str, float],
    progress: Any,
) -> ArmResult:
    device = worker_device(resources.get("GPU", 0.0) > 0)
    hyperparameters, epoch_cost = job.hyperparameters, None
    if job.rival is not None:
        rival = Rival(
            hyperparameters=job.rival,
            epochs=hyperparameters.epochs,
            num_train=material.rival_images,
            companion=material.rival_companion,
            streams_source=material.rival_streams_source,
        )
        epoch_cost = measure_epoch_cost(
            hyperparameters, material.samples, rival, workbench, device, on_round=progress.step.remote
        )
        epochs = affordable_epochs(hyperparameters.epochs, epoch_cost)
        hyperparameters = hyperparameters.model_copy(update={"epochs": epochs})

    def on_epoch(end: EpochEnd) -> None:
        progress.step.remote()

    from_scratch = job.name == "from_scratch"
    samples = material.samples
    classifier = workbench.classifier(samples.class_counts, from_scratch=from_scratch)
    trained = workbench.fine_tune(
        classifier,
        samples.train,
        samples.validation,
        samples.weighted(hyperparameters),
        device,
        from_scratch=from_scratch,
        on_epoch=on_epoch,
    )
    answers = _answer(material, workbench, reader, classifier, device)
    weights_digest = ""
    if job.model_path is not None:
        described = _described(job, material, hyperparameters)
        nodes = [ray.get_runtime_context().get_node_id()]
        card = describe_model(described, samples, workbench, trained, nodes, resources)
        weights_digest = save_model(storage.join(job.run_uri, job.model_path), classifier, card).weights_digest
    group, subset = job.material
    return ArmResult(
        fingerprint=job.fingerprint,
        group=group,
        subset=subset,
        name=job.name,
        hyperparameters=hyperparameters,
        epoch_cost=epoch_cost,
        seconds=trained.seconds,
        answers=answers,
        model=job.model_path,
        weights_digest=weights_digest,
        resources=resources,
    )


def _answer(
    material: ArmMaterial, workbench: Workbench, reader: PixelReader, classifier: Classifier, device: str
) -> dict[str, Answers]:
    """Tell for every subset which images of its splits are classified right; unknown classes never are."""
    samples = material.samples
    heads = samples.tasks if samples.heads == "subset" else ()
    found: dict[str, Answers] = {subset: Answers(validation=[], test=[]) for subset in material.subsets}
    for split, blocks in material.rows.items():
        if not blocks:
            continue
        correct = right_answers(blocks, samples.classes, workbench, reader, classifier, device, heads=heads)
        rows = pa.concat_tables(blocks).sort_by("position")
        subsets = np.asarray(rows.column("subset").to_pylist(), dtype=object)
        for subset in material.subsets:
            mine = correct[subsets == subset].tolist()
            update = {"validation": mine} if split == "val" else {"test": mine}
            found[subset] = found[subset].model_copy(update=update)
    return found


def _described(job: ArmJob, material: ArmMaterial, hyperparameters: Hyperparameters) -> ModelJob:
    return ModelJob(
        group=job.material[0] or job.name,
        subsets=material.subsets,
        hyperparameters=hyperparameters,
        fingerprint=job.fingerprint,
        data_fingerprint=material.data_fingerprint,
        from_scratch=job.name == "from_scratch",
    )
