"""What a reused trial actor does with an assignment: one trial, several heads at once, or a finalist's run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from ray import tune

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.workers import Workbench, use_threads, worker_device
from orchestrator.finetune.contracts import Inputs
from orchestrator.finetune.cross_validation import Fold, fine_tune_folds
from orchestrator.finetune.epochs import FoldHistory
from orchestrator.finetune.heads import train_heads
from orchestrator.records import EpochMetrics, Hyperparameters, Trial
from orchestrator.search.assignments import Assignment
from orchestrator.search.stopping import StoppingRule, best_at

OUTCOMES = "outcomes"
TRIALS = TypeAdapter(list[Trial])
OnEpoch = Callable[[EpochMetrics], None]
_BEAT_EVERY_S = 10.0


def run_assignment(
    config: dict[str, Any],
    *,
    samples: Mapping[str, GroupSamples],
    workbench: Workbench,
    stopping: StoppingRule | None,
    use_gpu: bool,
    num_cpus: float,
) -> None:
    """Do one assignment in this actor: report the epochs of a single trial as they end, then what came of all.

    An error of the training is an outcome too: the actor lives on and takes the next assignment.
    """
    use_threads(num_cpus)
    assignment: Assignment = config["assignment"]
    data, device = samples[assignment.group], worker_device(use_gpu)
    if assignment.kind == "heads":
        outcomes = run_heads(assignment, data, workbench, stopping, device, beat=_Beat())
    else:
        outcomes = [run_trial(assignment, data, workbench, device, on_epoch=_report)]
    tune.report({OUTCOMES: TRIALS.dump_json(outcomes).decode()})


def _report(metrics: EpochMetrics) -> None:
    tune.report(metrics.model_dump())


def run_trial(
    assignment: Assignment, data: GroupSamples, workbench: Workbench, device: str, *, on_epoch: OnEpoch
) -> Trial:
    """Fine-tune one configuration, on a re-split in a race: give what came of it, tell every epoch but the last.

    Where the samples are in folds, it is trained on each, and an epoch is the mean over them.
    """
    (member,) = assignment.members
    started, clock = time.time(), time.perf_counter()
    history = FoldHistory()
    has_one_pass = member.hyperparameters.has_one_pass(workbench.backbone.num_stages)
    last = 1 if has_one_pass else member.hyperparameters.epochs

    def keep(found: Sequence[EpochMetrics]) -> None:
        mean = history.append(found)
        # The last epoch comes with the outcome: Tune takes its time for a report, and nothing is left to stop.
        if mean.epoch < last:
            on_epoch(mean)

    inputs: Inputs = "pixels"
    error: str | None = None
    try:
        if assignment.race is not None:
            data = data.resplit(assignment.race.resplit, seed=workbench.split_seed)
        depth = member.hyperparameters.freeze_depth
        inputs = fine_tune_folds(
            lambda: workbench.classifier(data.output_counts),
            workbench.backbone.spec,
            [
                Fold(train=part.train, validation=part.validation, activations=part.activations(depth))
                for part in data.parts()
            ],
            data.weighted(member.hyperparameters),
            workbench.settings(device),
            on_epoch=keep,
            source=workbench.pretrained(),
            companion=data.companion,
        )
    except Exception as failure:  # whatever ends a trial is its result; the actor lives on
        error = f"{type(failure).__name__}: {failure}"
    return outcome(
        member.name,
        member.hyperparameters,
        history.means,
        metric=workbench.metric,
        seconds=time.perf_counter() - clock,
        started=started,
        inputs=inputs,
        error=error,
        standard_error=history.standard_error(workbench.metric),
    )


class _Beat:
    """Tell the driver now and then that work goes on which reports nothing before its end."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> None:
        # Tune takes a tenth of a second for a report, in which many heads have an epoch behind them.
        if time.monotonic() - self._last >= _BEAT_EVERY_S:
            self._last = time.monotonic()
            tune.report({"alive": True})


def run_heads(
    assignment: Assignment,
    data: GroupSamples,
    workbench: Workbench,
    stopping: StoppingRule | None,
    device: str,
    *,
    beat: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Train all heads of an assignment in one stack, and give what came of each."""
    started, clock = time.time(), time.perf_counter()
    recipes = [member.hyperparameters for member in assignment.members]
    names = [member.name for member in assignment.members]
    try:
        classifier = workbench.classifier(data.class_counts)
        settings = workbench.settings(device)
        found = [part.features(classifier, workbench.backbone.spec, settings) for part in data.parts()]
        waited = (time.perf_counter() - clock) / len(recipes)
        stop = _Stopper(stopping, assignment.seen, recipes, workbench.metric)

        def after_epoch(head: int, history: Sequence[EpochMetrics]) -> bool:
            beat()
            return stop(head, history)

        results = train_heads(classifier.head, [fold for fold, _ in found], recipes, settings, should_stop=after_epoch)
    except Exception as failure:  # whatever ends the heads is the result of each
        share = (time.perf_counter() - clock) / len(recipes)
        error = f"{type(failure).__name__}: {failure}"
        return [
            outcome(name, recipe, [], metric=workbench.metric, seconds=share, started=started, error=error)
            for name, recipe in zip(names, recipes, strict=True)
        ]
    return [
        outcome(
            name,
            recipe,
            result.history,
            metric=workbench.metric,
            seconds=result.seconds + waited,
            started=started,
            inputs=found[0][1],
            error=result.error,
            stopped=result.stopped,
            standard_error=result.standard_error,
        )
        for name, recipe, result in zip(names, recipes, results, strict=True)
    ]


def outcome(
    name: str,
    hyperparameters: Hyperparameters,
    history: Sequence[EpochMetrics],
    *,
    metric: str,
    seconds: float,
    started: float,
    inputs: Inputs = "pixels",
    error: str | None = None,
    stopped: bool = False,
    standard_error: float | None = None,
) -> Trial:
    """Make the record of a trial: its value is that of its best epoch, or none when it failed."""
    values = [float(getattr(metrics, metric)) for metrics in history]
    best = (min if metric == "val_loss" else max)(values, default=None)
    return Trial(
        trial_id=name,
        hyperparameters=hyperparameters,
        status="failed" if error is not None else "stopped" if stopped else "complete",
        value=None if error is not None else best,
        standard_error=None if error is not None else standard_error,
        history=list(history),
        seconds=seconds,
        error=error,
        started=started,
        inputs=inputs,
    )


def describe_outcome(assignment: Assignment, outcomes: Sequence[Trial], metric: str) -> list[str]:
    """Say what came of an assignment in a line for each trial."""
    what = "finalist" if assignment.race is not None else "trial"
    lines = []
    for trial in outcomes:
        ended = "stopped at " if trial.status == "stopped" else ""
        spread = "" if trial.standard_error is None else f" (standard error {trial.standard_error:.3f})"
        result = trial.error if trial.value is None else f"{ended}{metric} {trial.value:.3f}{spread}"
        lines.append(f"{what} {trial.trial_id} {result} in {trial.seconds:.1f} s")
    return lines


class _Stopper:
    """Stop heads by the group's rule: what other trials had reached at a rung, and what this stack's heads do."""

    def __init__(
        self,
        rule: StoppingRule | None,
        seen: Mapping[float, Sequence[float]],
        recipes: Sequence[Hyperparameters],
        metric: str,
    ) -> None:
        self._rule = rule
        self._seen = {rung: list(values) for rung, values in seen.items()}
        self._recipes = recipes
        self._metric = metric
        self._sign = -1.0 if metric == "val_loss" else 1.0

    def __call__(self, head: int, history: Sequence[EpochMetrics]) -> bool:
        epochs = self._recipes[head].epochs
        rung = None if self._rule is None else self._rule.rung_passed(len(history), epochs)
        if self._rule is None or rung is None:
            return False
        scores = [self._sign * float(getattr(metrics, self._metric)) for metrics in history]
        others = self._seen.setdefault(rung, [])
        stops = self._rule.stops(scores, others, rung=rung)
        reached = best_at(scores, rung, epochs)
        if reached is not None:
            others.append(reached)
        return stops
