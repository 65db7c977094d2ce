"""Runs the searches of all groups in one Tuner: reused trial actors, a study for each group."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.cluster.resources import ClusterShape, require_fit, slots
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.cluster.workers import GroupSamples, Workbench, use_threads, worker_device
from orchestrator.finetune.loop import EpochEnd, fine_tune
from orchestrator.records import Hyperparameters, Trial
from orchestrator.search.scheduling import GroupProgress, next_group
from orchestrator.search.studies import GroupStudy

SEARCH_VERSION = 1
_OUTCOME = "outcome"
OnTrial = Callable[[str, Trial], None]


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """Say how trials share the cluster; `max_concurrent_trials` None takes what fits."""

    resources_per_trial: dict[str, float]
    max_concurrent_trials: int | None
    use_gpu: bool
    time_budget_s: float | None
    stall_timeout_s: float


def search_groups(
    studies: Mapping[str, GroupStudy],
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    plan: TuningPlan,
    shape: ClusterShape,
    *,
    on_trial: OnTrial,
) -> int:
    """Run the trials that the studies still want; each ends as a record in its study.

    Trials of different groups run at the same time where the cluster has room. Gives the number of trials that the
    time budget cut off: they stay running in their studies, and run again when a study is reconciled. Raises
    ResourceError when not even one trial fits, WaitTimeoutError when none makes progress.
    """
    require_fit(
        plan.resources_per_trial,
        1,
        shape,
        what="one trial of the search",
        remedy="Lower search.resources_per_trial.",
    )
    searcher = _GroupSearcher(studies, time_budget_s=plan.time_budget_s, on_trial=on_trial)
    watchdog = Watchdog("the search", wanted=plan.resources_per_trial, stall_timeout_s=plan.stall_timeout_s)
    with tempfile.TemporaryDirectory(prefix="orchestrator-tune-") as scratch, watchdog:
        tuner = tune.Tuner(
            _trainable(samples, workbench, plan),
            tune_config=_tune_config(searcher, studies, plan, shape),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Beat(watchdog)],
            ),
        )
        tuner.fit()
    return searcher.cut_off


def _trainable(samples: Mapping[str, GroupSamples], workbench: Workbench, plan: TuningPlan) -> Any:
    bound = tune.with_parameters(
        run_trial,
        samples=dict(samples),
        workbench=workbench,
        use_gpu=plan.use_gpu,
        num_cpus=plan.resources_per_trial.get("CPU", 1.0),
    )
    return tune.with_resources(bound, plan.resources_per_trial)


def _tune_config(
    searcher: Searcher, studies: Mapping[str, GroupStudy], plan: TuningPlan, shape: ClusterShape
) -> tune.TuneConfig:
    limit = plan.max_concurrent_trials
    room = max(1, slots(plan.resources_per_trial, shape))
    if shape.elastic:
        room = sum(study.progress().num_samples for study in studies.values())
    # Tune asks for one trial at a time unless it may hold several that wait for their actors.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(min(room, limit or room))
    return tune.TuneConfig(
        search_alg=searcher,
        num_samples=-1,
        reuse_actors=True,
        max_concurrent_trials=limit if limit is not None and limit < room else None,
        time_budget_s=plan.time_budget_s,
    )


def run_trial(
    config: dict[str, Any],
    *,
    samples: dict[str, GroupSamples],
    workbench: Workbench,
    use_gpu: bool,
    num_cpus: float,
) -> None:
    """Fine-tune one configuration in this actor and report every epoch, then the outcome.

    An error of the training is an outcome too: the actor lives on and takes the next trial.
    """
    use_threads(num_cpus)
    data = samples[config["group"]]
    hyperparameters = Hyperparameters.model_validate(config["hyperparameters"])
    started, clock = time.time(), time.perf_counter()
    history = []

    def on_epoch(end: EpochEnd) -> None:
        history.append(end.metrics)
        tune.report(end.metrics.model_dump())

    error: str | None = None
    try:
        fine_tune(
            workbench.classifier(len(data.classes)),
            workbench.backbone.spec,
            data.train,
            data.validation,
            hyperparameters,
            workbench.settings(worker_device(use_gpu)),
            on_epoch=on_epoch,
        )
    except Exception as failure:  # whatever ends a trial is its result; the actor lives on
        error = f"{type(failure).__name__}: {failure}"
    pick = min if workbench.metric == "val_loss" else max
    values = [getattr(metrics, workbench.metric) for metrics in history]
    trial = Trial(
        trial_id=config["trial_id"],
        hyperparameters=hyperparameters,
        status="complete" if error is None else "failed",
        value=pick(values) if error is None else None,
        history=history,
        seconds=time.perf_counter() - clock,
        error=error,
        started=started,
    )
    tune.report({_OUTCOME: trial.model_dump_json()})


class _NeverRestored:
    """Leave the state out of the copy of itself that a Tuner writes: no search is restored from that copy."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _GroupSearcher(_NeverRestored, Searcher):
    """Hand out trials of several studies, and tell each study how its trials ended."""

    def __init__(self, studies: Mapping[str, GroupStudy], *, time_budget_s: float | None, on_trial: OnTrial) -> None:
        super().__init__(metric=None, mode=None)
        self._studies = studies
        self._deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
        self._on_trial = on_trial
        self._running: dict[str, tuple[str, int, Trial]] = {}

    @property
    def cut_off(self) -> int:
        """Count the trials that Tune has ended without an outcome, as it does when the time budget is spent."""
        return len(self._running)

    def suggest(self, trial_id: str) -> Any:
        progress = [self._progress(name) for name in self._studies]
        group = next_group(progress, now=time.monotonic(), deadline=self._deadline)
        asked = None if group is None else self._studies[group].ask()
        if group is None or asked is None:
            return Searcher.FINISHED
        number, hyperparameters = asked
        name = f"{group}-{number}"
        placeholder = Trial(
            trial_id=name,
            hyperparameters=hyperparameters,
            status="failed",
            value=None,
            history=[],
            seconds=0.0,
            started=time.time(),
        )
        self._running[trial_id] = (group, number, placeholder)
        return {"group": group, "trial_id": name, "hyperparameters": hyperparameters.model_dump()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        has_outcome = result is not None and _OUTCOME in result
        if trial_id not in self._running or not (has_outcome or error):
            return
        group, number, placeholder = self._running.pop(trial_id)
        if result is not None and has_outcome:
            trial = Trial.model_validate_json(result[_OUTCOME])
        else:
            reason = "Tune lost the trial: its worker process may have died for lack of memory"
            seconds = time.time() - placeholder.started
            trial = placeholder.model_copy(update={"error": reason, "seconds": seconds})
        self._studies[group].record(number, trial)
        self._on_trial(group, trial)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the studies are on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a search continues from its studies."""

    def _progress(self, name: str) -> GroupProgress:
        return self._studies[name].progress()


class _Beat(_NeverRestored, tune.Callback):
    """Tell the watchdog of every epoch of every trial."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self._watchdog.beat()
