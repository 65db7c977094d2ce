"""Runs a search engine's assignments in one Tuner over all groups, on reused trial actors."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape, require_fit, slots
from orchestrator.cluster.trials import OUTCOMES, TRIALS, outcome, run_assignment
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.cluster.workers import Workbench
from orchestrator.records import EpochMetrics, Trial
from orchestrator.search.assignments import Assignment
from orchestrator.search.engine import SearchEngine
from orchestrator.search.stopping import StoppingRule

SEARCH_VERSION = 2
OnFinished = Callable[[Assignment, list[Trial]], None]


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """Say how trials share the cluster; `max_concurrent_trials` None takes what fits."""

    resources_per_trial: dict[str, float]
    max_concurrent_trials: int | None
    use_gpu: bool
    stall_timeout_s: float
    metric: str
    stopping: StoppingRule | None
    num_trials: int

    def workers(self, shape: ClusterShape) -> int:
        """Count the trials that run at the same time."""
        room = self.num_trials if shape.elastic else max(1, slots(self.resources_per_trial, shape))
        return max(1, min(room, self.num_trials, self.max_concurrent_trials or room))


def run_search(
    engine: SearchEngine,
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    plan: TuningPlan,
    shape: ClusterShape,
    *,
    clock: Callable[[], float],
    on_finished: OnFinished,
) -> None:
    """Run the engine's assignments until it has no more; `clock` gives the seconds of search so far.

    Raises ResourceError when not even one trial fits, WaitTimeoutError when none makes progress.
    """
    require_fit(
        plan.resources_per_trial,
        1,
        shape,
        what="one trial of the search",
        remedy="Lower search.resources_per_trial.",
    )
    watchdog = Watchdog("the search", wanted=plan.resources_per_trial, stall_timeout_s=plan.stall_timeout_s)
    searcher = _EngineSearcher(engine, plan.metric, clock=clock, on_finished=on_finished)
    with tempfile.TemporaryDirectory(prefix="orchestrator-tune-") as scratch, watchdog:
        tuner = tune.Tuner(
            _trainable(samples, workbench, plan),
            tune_config=_tune_config(searcher, _EngineScheduler(engine, clock), plan.workers(shape)),
            run_config=tune.RunConfig(name="search", storage_path=scratch, verbose=0, callbacks=[_Beat(watchdog)]),
        )
        tuner.fit()


def _trainable(samples: Mapping[str, GroupSamples], workbench: Workbench, plan: TuningPlan) -> Any:
    bound = tune.with_parameters(
        run_assignment,
        samples=dict(samples),
        workbench=workbench,
        stopping=plan.stopping,
        use_gpu=plan.use_gpu,
        num_cpus=plan.resources_per_trial.get("CPU", 1.0),
    )
    return tune.with_resources(bound, plan.resources_per_trial)


def _tune_config(searcher: Searcher, scheduler: TrialScheduler, workers: int) -> tune.TuneConfig:
    # Tune asks for one trial at a time unless it may hold several that wait for their actors.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,
        reuse_actors=True,
        max_concurrent_trials=workers,
    )


class _NeverRestored:
    """Leave the state out of the copy of itself that a Tuner writes: no search is restored from that copy."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _EngineSearcher(_NeverRestored, Searcher):
    """Hand out the engine's assignments, and tell it how they ended."""

    def __init__(
        self, engine: SearchEngine, metric: str, *, clock: Callable[[], float], on_finished: OnFinished
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._engine = engine
        self._metric_name = metric
        self._clock = clock
        self._on_finished = on_finished
        self._running: dict[str, tuple[Assignment, float]] = {}

    def suggest(self, trial_id: str) -> Any:
        assignment = self._engine.next(elapsed_s=self._clock())
        if assignment is None:
            return Searcher.FINISHED
        if assignment == "wait":
            return None
        self._running[trial_id] = (assignment, time.time())
        return {"assignment": assignment}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self._running:
            return
        assignment, started = self._running.pop(trial_id)
        if result is not None and OUTCOMES in result:
            outcomes = TRIALS.validate_json(result[OUTCOMES])
        else:
            outcomes = self._cut_short(assignment, started, lost=error)
        self._engine.finish(assignment.name, outcomes)
        self._on_finished(assignment, outcomes)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the studies are on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a search continues from its studies."""

    def _cut_short(self, assignment: Assignment, started: float, *, lost: bool) -> list[Trial]:
        """Record trials that ended without an outcome: stopped by the scheduler, or lost with their process."""
        history = self._engine.epochs_of(assignment.name)
        reason = "Tune lost the trial: its worker process may have died for lack of memory"
        return [
            outcome(
                member.name,
                member.hyperparameters,
                history,
                metric=self._metric_name,
                seconds=time.time() - started,
                started=started,
                error=reason if lost or not history else None,
                stopped=True,
            )
            for member in assignment.members
        ]


class _EngineScheduler(_NeverRestored, FIFOScheduler):
    """Stop the trials that the engine gives up on."""

    def __init__(self, engine: SearchEngine, clock: Callable[[], float]) -> None:
        FIFOScheduler.__init__(self)
        self._engine = engine
        self._clock = clock

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "val_loss" not in result:
            return str(TrialScheduler.CONTINUE)
        metrics = EpochMetrics.model_validate({name: result[name] for name in EpochMetrics.model_fields})
        stops = self._engine.report(trial.config["assignment"].name, metrics, elapsed_s=self._clock())
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


class _Beat(_NeverRestored, tune.Callback):
    """Tell the watchdog of every epoch of every trial."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self._watchdog.beat()
