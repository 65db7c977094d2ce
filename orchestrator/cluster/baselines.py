"""Trains the control arms as single-process Ray tasks of the same `fine_tune`, and tests each on the spot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from orchestrator.cluster.failures import translate
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape, require_fit
from orchestrator.cluster.tasks import as_task
from orchestrator.cluster.watchdog import Watchdog, gather, start_progress
from orchestrator.cluster.workers import Workbench, use_threads, worker_device
from orchestrator.data.multi_label import label_indicators
from orchestrator.data.reader import PixelReader
from orchestrator.evaluation.answers import pack
from orchestrator.evaluation.heads import ONE_HEAD, by_own_heads
from orchestrator.evaluation.label_answers import LabelAnswers
from orchestrator.finetune.classifier import Classifier, predict_probabilities
from orchestrator.finetune.loop import EpochEnd
from orchestrator.records import BaselineName, BaselineResult, Hyperparameters, TaskClasses

BASELINE_VERSION = 1
_EPOCHS_BESIDE_ONE_PASS = 30


@dataclass(frozen=True, kw_only=True)
class BaselineJob:
    """Hold one control arm to train."""

    group: str
    name: BaselineName
    hyperparameters: Hyperparameters
    fingerprint: str


def control_arms(
    winner: Hyperparameters,
    fixed: Hyperparameters,
    num_stages: int,
    *,
    has_source: bool = False,
    has_heads: bool = False,
) -> dict[BaselineName, Hyperparameters]:
    """Give the control arms of a winner.

    The fixed rule as it stands; the head alone at rate 1e-3 and the winner's epochs; everything from scratch at
    the winner's rate and epochs. The latter two train all that they train from the first epoch on, a linear head with
    it, and nothing is held near a random start, by a penalty, small rates or a mean. Beside prototypes that are found
    in one pass, which have no rate and no epochs, these two have rate 1e-3 and 30 epochs. All are trained on the target
    alone; with a source so is the winner's recipe as it stands, which tells what the source gained. Where subsets have
    heads of their own, so do these, and one arm more has one head for all by the winner's recipe.
    """
    # A single pass has neither rate nor epochs to take over.
    steps = {"learning_rate": 1e-3, "epochs": _EPOCHS_BESIDE_ONE_PASS} if winner.has_one_pass(num_stages) else {}
    without_source: dict[BaselineName, Hyperparameters] = {"target_only": winner} if has_source else {}
    return {
        "fixed_rule": fixed,
        "head_only": winner.model_copy(
            update={**steps, "freeze_depth": num_stages, "learning_rate": 1e-3, "strategy": "freeze", "head": "linear"}
        ),
        "from_scratch": winner.model_copy(
            update={
                **steps,
                "freeze_depth": 0,
                "strategy": "freeze",
                "head": "linear",
                "regularizer": "none",
                "layer_decay": 1.0,
                "ema_decay": None,
            }
        ),
        **without_source,
        **({ONE_HEAD: winner.model_copy(update={"task_weighting": "equal"})} if has_heads else {}),
    }


def run_baselines(
    jobs: Sequence[BaselineJob],
    samples: Mapping[str, GroupSamples],
    tests: Mapping[str, Sequence[pa.Table]],
    workbench: Workbench,
    reader: PixelReader,
    resources: Mapping[str, float],
    shape: ClusterShape,
    *,
    stall_timeout_s: float,
) -> Iterator[BaselineResult]:
    """Train and test the control arms, as many at a time as fit; one that fails is a result with its error.

    `samples` and `tests` go by group; the latter are numbered catalogue rows, in blocks of one fragment each.
    """
    if not jobs:
        return
    require_fit(resources, 1, shape, what="one baseline", remedy="Lower search.resources_per_trial.")
    progress = start_progress()
    shared = {group: (ray.put(samples[group]), ray.put(list(tests[group]))) for group in samples}
    task = as_task(_run, resources)
    # The longest first, so that none is left to run alone at the end.
    ordered = sorted(jobs, key=lambda job: (job.hyperparameters.freeze_depth, -job.hyperparameters.epochs))
    submissions = [
        partial(task.remote, job, *shared[job.group], workbench, reader, dict(resources), progress) for job in ordered
    ]
    with Watchdog("the baselines", wanted=resources, stall_timeout_s=stall_timeout_s) as watchdog:
        for index, outcome in gather(submissions, progress=progress, watchdog=watchdog):
            yield _read_outcome(ordered[index], outcome)


def _read_outcome(job: BaselineJob, outcome: str | Exception) -> BaselineResult:
    if isinstance(outcome, Exception):
        return _result(job, seconds=0.0, error=str(translate(outcome, "a baseline")))
    return BaselineResult.from_json(outcome, source="a baseline")


def _result(
    job: BaselineJob,
    *,
    seconds: float,
    error: str | None,
    answers: Mapping[str, Any] | None = None,
) -> BaselineResult:
    """Make the record of a control arm; `answers` are the fields that say how it did, none where it failed."""
    return BaselineResult(
        fingerprint=job.fingerprint,
        group=job.group,
        name=job.name,
        hyperparameters=job.hyperparameters,
        seconds=seconds,
        error=error,
        **(answers or {"correct": None}),
    )


def _run(
    job: BaselineJob,
    samples: GroupSamples,
    test: list[pa.Table],
    workbench: Workbench,
    reader: PixelReader,
    resources: dict[str, float],
    progress: Any,
) -> str:
    use_threads(resources.get("CPU", 1.0))
    device = worker_device(resources.get("GPU", 0.0) > 0)
    started = time.perf_counter()
    answers: dict[str, Any] | None = None
    error: str | None = None
    try:
        samples = samples.with_one_head() if job.name == ONE_HEAD else samples
        classifier = _train(job, samples, workbench, device, progress)
        seconds = time.perf_counter() - started
        heads = samples.tasks if samples.heads == "subset" else ()
        if classifier.multi_label:
            found = label_answers(test, samples.classes, workbench, reader, classifier, device)
            answers = found.fields()
        else:
            correct = right_answers(test, samples.classes, workbench, reader, classifier, device, heads=heads)
            answers = {"correct": pack(correct)}
    except Exception as failure:  # whatever ends a control arm is its result
        seconds = time.perf_counter() - started
        error = f"{type(failure).__name__}: {failure}"
    return _result(job, seconds=seconds, error=error, answers=answers).to_json()


def _train(job: BaselineJob, samples: GroupSamples, workbench: Workbench, device: str, progress: Any) -> Classifier:
    from_scratch = job.name == "from_scratch"

    def on_epoch(end: EpochEnd) -> None:
        progress.step.remote()

    classifier = workbench.classifier(samples.class_counts, from_scratch=from_scratch)
    workbench.fine_tune(
        classifier,
        samples.train,
        samples.validation,
        samples.weighted(job.hyperparameters),
        device,
        from_scratch=from_scratch,
        on_epoch=on_epoch,
    )
    return classifier


def right_answers(
    blocks: Sequence[pa.Table],
    classes: Sequence[str],
    workbench: Workbench,
    reader: PixelReader,
    classifier: Classifier,
    device: str,
    *,
    heads: Sequence[TaskClasses] = (),
) -> NDArray[np.bool_]:
    """Tell for every numbered row [n], in the catalogue's order, whether its class is found; unknown ones never are.

    With `heads` of subsets each row is judged by its subset's.
    """
    names = np.asarray(classes)
    correct = np.zeros(sum(block.num_rows for block in blocks), dtype=np.bool_)
    for block, places, probabilities in _predicted(blocks, workbench, reader, classifier, device):
        if heads:
            probabilities = by_own_heads(probabilities, block.column("subset").to_pylist(), heads, classes)
        # Of several tasks the first is compared.
        found = names[probabilities[:, : len(names)].argmax(axis=1)] == np.asarray(block.column("label").to_pylist())
        correct[places] = found
    return correct


def label_answers(
    blocks: Sequence[pa.Table],
    classes: Sequence[str],
    workbench: Workbench,
    reader: PixelReader,
    classifier: Classifier,
    device: str,
) -> LabelAnswers:
    """Gather what to keep of each label's probability for every numbered row, in the catalogue's order."""
    answers = LabelAnswers(sum(block.num_rows for block in blocks), len(classes))
    for block, places, probabilities in _predicted(blocks, workbench, reader, classifier, device):
        answers.add(places, probabilities, label_indicators(block.column("label").to_pylist(), classes) > 0)
    return answers


def _predicted(
    blocks: Sequence[pa.Table], workbench: Workbench, reader: PixelReader, classifier: Classifier, device: str
) -> Iterator[tuple[pa.Table, NDArray[np.int64], NDArray[np.float32]]]:
    """Iterate over blocks of numbered rows, their places [n] and the probabilities [n, K] of their images."""
    for block in blocks:
        pixels = reader.read(block)
        yield (
            block,
            np.asarray(block.column("position")),
            predict_probabilities(classifier, workbench.backbone.spec, pixels, device=device),
        )
