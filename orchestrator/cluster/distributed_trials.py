"""What a trial of several workers does: a Ray Train run of its own that reports to Ray Tune, epoch by epoch."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.cluster.failures import translate
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.session import set_environment
from orchestrator.cluster.trials import OUTCOMES, TRIALS, outcome, run_assignment, run_trial
from orchestrator.cluster.workers import Workbench, use_threads
from orchestrator.records import EpochMetrics, Trial
from orchestrator.search.assignments import Assignment
from orchestrator.search.stopping import StoppingRule


@dataclass(frozen=True, kw_only=True)
class TrialWorkers:
    """Say how many workers a trial has and what each takes: whole GPUs only, which NCCL asks for."""

    num_workers: int
    resources_per_worker: dict[str, float]
    use_gpu: bool

    @property
    def num_cpus(self) -> float:
        """Give the CPUs of one worker."""
        return self.resources_per_worker.get("CPU", 1.0)


def run_distributed_assignment(
    config: dict[str, Any],
    *,
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    stopping: StoppingRule | None,
    workers: TrialWorkers,
) -> None:
    """Do one assignment: one configuration on several workers, or several heads in this process.

    The epochs of a trial are reported, the last with what came of it; an error of the training is an outcome too.
    Must run in an actor of Ray Tune that no other trial uses again: where a trial has ended, this waits to be stopped.
    """
    assignment: Assignment = config["assignment"]
    if assignment.kind == "heads":
        # Many heads are one small training: nothing to divide, and Tune has given this process a worker's resources.
        run_assignment(
            config,
            samples=samples,
            workbench=workbench,
            stopping=stopping,
            use_gpu=workers.use_gpu,
            num_cpus=workers.num_cpus,
        )
        return
    report: Any = TuneReportCallback()
    found = _train(assignment, samples[assignment.group], workbench, workers, report)
    # Through the queue that the epochs take: it keeps the order. Tune's own report, from this thread, and an epoch
    # that still waits in the queue would block each other for ever; for the same reason this must not return.
    report.after_report(None, [{OUTCOMES: TRIALS.dump_json([found]).decode(), "done": True}], None)
    threading.Event().wait()


def _train(
    assignment: Assignment, samples: GroupSamples, workbench: Workbench, workers: TrialWorkers, report: Any
) -> Trial:
    set_environment()
    (member,) = assignment.members
    started, clock = time.time(), time.perf_counter()
    loop_config = {
        "assignment": assignment,
        "samples": ray.put(samples),
        "workbench": workbench,
        "num_cpus": workers.num_cpus,
    }
    trainer = TorchTrainer(
        _train_rank,
        train_loop_config=loop_config,
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.resources_per_worker,
        ),
        run_config=RunConfig(
            # Ray Train resumes a run of the same name: a trial that is run again must not.
            name=f"{member.name}-{uuid4().hex}",
            # Without checkpoints nothing is kept here, and Tune's directory for the trial goes with Ray's session.
            storage_path=str(Path.cwd()),
            failure_config=FailureConfig(max_failures=0),
            callbacks=[report],
        ),
    )
    try:
        result: Any = trainer.fit()
        (found,) = TRIALS.validate_json(result.return_value)
    except TrainingFailedError as failure:
        found = _failed(failure) or outcome(
            member.name,
            member.hyperparameters,
            [],
            metric=workbench.metric,
            seconds=0.0,
            started=started,
            error=str(translate(failure, "a trial of several workers")),
        )
    # What the workers took to start is part of what the trial took from the cluster.
    return found.model_copy(update={"started": started, "seconds": time.perf_counter() - clock})


def _train_rank(loop_config: dict[str, Any]) -> Any:
    """Train on one rank, and give what came of it."""
    use_threads(loop_config["num_cpus"])
    samples: GroupSamples = ray.get(loop_config["samples"])
    found = run_trial(loop_config["assignment"], samples, loop_config["workbench"], str(get_device()), on_epoch=_report)
    written = TRIALS.dump_json([found]).decode()
    if found.error is not None:
        # The other ranks would wait for one that just returned; Ray Train ends them all when one raises.
        raise _RankFailedError(written)
    return written


def _report(metrics: EpochMetrics) -> None:
    ray.train.report(metrics.model_dump())


class _RankFailedError(Exception):
    """Carry the outcome of a failed rank."""


def _failed(failure: TrainingFailedError) -> Trial | None:
    """Give the outcome of the rank that failed first: the others fail because it has gone."""
    if not isinstance(failure, WorkerGroupError):
        return None
    ranks = [error for error in failure.worker_failures.values() if isinstance(error, _RankFailedError)]
    outcomes = [TRIALS.validate_json(str(error))[0] for error in ranks]
    return min(outcomes, key=lambda found: found.started + found.seconds, default=None)
