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

from orchestrator.cluster.distributed_trials import TrialWorkers, run_distributed_assignment
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import TRIAL_ACTOR_CPU, ClusterShape, trials_at_once
from orchestrator.cluster.session import require_dashboard
from orchestrator.cluster.trials import OUTCOMES, TRIALS, outcome, run_assignment
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.cluster.workers import Workbench
from orchestrator.records import EpochMetrics, Trial
from orchestrator.search.assignments import Assignment
from orchestrator.search.engine import SearchEngine
from orchestrator.search.stopping import StoppingRule

SEARCH_VERSION = 2
OnFinished = Callable[[Assignment, list[Trial]], None]
OnLost = Callable[[Assignment], None]


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """Say how trials share the cluster; `max_concurrent_trials` None takes what fits.

    With `num_workers_per_trial` above 1, `resources_per_trial` is what each worker of a trial takes.
    """

    resources_per_trial: dict[str, float]
    max_concurrent_trials: int | None
    use_gpu: bool
    stall_timeout_s: float
    metric: str
    stopping: StoppingRule | None
    num_trials: int
    num_workers_per_trial: int = 1

    @property
    def is_distributed(self) -> bool:
        """Tell whether a trial has several workers."""
        return self.num_workers_per_trial > 1

    @property
    def held_by_trial(self) -> dict[str, float]:
        """Give what one trial takes, all its workers together."""
        return {name: amount * self.num_workers_per_trial for name, amount in self.resources_per_trial.items()}

    def trials_at_once(self, shape: ClusterShape) -> int:
        """Count the trials that run at the same time. Raises ResourceError when not even one fits."""
        most = min(self.num_trials, self.max_concurrent_trials or self.num_trials)
        return trials_at_once(self.resources_per_trial, self.num_workers_per_trial, shape, most=most)


def run_search(
    engine: SearchEngine,
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    plan: TuningPlan,
    shape: ClusterShape,
    *,
    clock: Callable[[], float],
    on_finished: OnFinished,
    on_lost: OnLost = lambda assignment: None,
) -> None:
    """Run the engine's assignments until it has no more; `clock` gives the seconds of search so far.

    An assignment whose worker dies is run once more, of which `on_lost` is told.
    Raises ResourceError when not even one trial fits, or trials of several workers could not be stopped cleanly,
    WaitTimeoutError when none makes progress.
    """
    at_once = plan.trials_at_once(shape)
    if plan.is_distributed:
        # A trial that is stopped early dies with its process, and with that Ray Train's controller. What the
        # controller had reserved for its workers outlives it, until Ray Train's PlacementGroupCleaner sees that the
        # controller is gone: it asks the dashboard's state API. Without one the CPUs stay reserved for ever.
        require_dashboard("search.num_workers_per_trial above 1")
    watchdog = Watchdog("the search", wanted=plan.resources_per_trial, stall_timeout_s=plan.stall_timeout_s)
    searcher = _EngineSearcher(engine, samples, plan.metric, clock=clock, on_finished=on_finished, on_lost=on_lost)
    with tempfile.TemporaryDirectory(prefix="orchestrator-tune-") as scratch, watchdog:
        tuner = tune.Tuner(
            _trainable(samples, workbench, plan),
            tune_config=_tune_config(searcher, _EngineScheduler(engine, clock), plan, at_once),
            run_config=tune.RunConfig(name="search", storage_path=scratch, verbose=0, callbacks=[_Beat(watchdog)]),
        )
        tuner.fit()


def _trainable(samples: Mapping[str, GroupSamples], workbench: Workbench, plan: TuningPlan) -> Any:
    shared = {"samples": dict(samples), "workbench": workbench, "stopping": plan.stopping}
    num_cpus = plan.resources_per_trial.get("CPU", 1.0)
    if not plan.is_distributed:
        bound = tune.with_parameters(run_assignment, **shared, use_gpu=plan.use_gpu, num_cpus=num_cpus)
        return tune.with_resources(bound, plan.resources_per_trial)
    workers = TrialWorkers(
        num_workers=plan.num_workers_per_trial,
        resources_per_worker=plan.resources_per_trial,
        use_gpu=plan.use_gpu,
    )
    bound = tune.with_parameters(run_distributed_assignment, **shared, workers=workers)

    def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Give heads, which train in the trial's own process, a worker's resources; workers reserve theirs."""
        assignment: Assignment = config["assignment"]
        is_here = assignment.kind == "heads"
        return tune.PlacementGroupFactory([plan.resources_per_trial if is_here else {"CPU": TRIAL_ACTOR_CPU}])

    return tune.with_resources(bound, resources)


def _tune_config(
    searcher: Searcher, scheduler: TrialScheduler, plan: TuningPlan, trials_at_once: int
) -> tune.TuneConfig:
    # Tune asks for one trial at a time unless it may hold several that wait for their actors.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(trials_at_once)
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,
        # The workers of a trial end with its process, and only with it: one in use again would keep the stopped
        # trial's training, and Tune would wait for it.
        reuse_actors=not plan.is_distributed,
        max_concurrent_trials=trials_at_once,
    )


class _NeverRestored:
    """Leave the state out of the copy of itself that a Tuner writes: no search is restored from that copy."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _EngineSearcher(_NeverRestored, Searcher):
    """Hand out the engine's assignments, and tell it how they ended."""

    def __init__(
        self,
        engine: SearchEngine,
        samples: Mapping[str, GroupSamples],
        metric: str,
        *,
        clock: Callable[[], float],
        on_finished: OnFinished,
        on_lost: OnLost,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._engine = engine
        self._samples = samples
        self._metric_name = metric
        self._clock = clock
        self._on_finished = on_finished
        self._on_lost = on_lost
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
        elif error and self._engine.lose(assignment.name):
            self._on_lost(assignment)
            return
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
        reason = "Tune lost the trial twice: its worker process may have died for lack of memory"
        depth = assignment.members[0].hyperparameters.freeze_depth
        is_kept = self._samples[assignment.group].activations(depth) is not None
        return [
            outcome(
                member.name,
                member.hyperparameters,
                history,
                metric=self._metric_name,
                seconds=time.time() - started,
                started=started,
                inputs="activations" if is_kept else "pixels",
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

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose none: the controller starts all that wait anyway.

        A chosen one would take the actor that has just become free, even when its own was starting: that one would
        be killed, and the next trial would start another. Where trials are shorter than an actor's start, a second
        one would never come up.
        """

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
