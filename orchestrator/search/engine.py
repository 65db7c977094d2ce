"""Runs the searches of all groups as one state machine: what to try next, when to stop it, what came of it.

Nothing here waits or trains. The caller asks for assignments, tells epochs and outcomes, and keeps time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.config import StrategyName
from orchestrator.records import EpochMetrics, Hyperparameters, RaceRun, Trial
from orchestrator.search.assignments import Assignment, Member
from orchestrator.search.finals import Finals
from orchestrator.search.promise import most_promising
from orchestrator.search.shared_list import shared_list
from orchestrator.search.space import SearchSpace
from orchestrator.search.spending import GroupState, Spending, next_move
from orchestrator.search.stopping import StoppingRule, best_at
from orchestrator.search.studies import GroupStudy

# Enough points of the space for the mean of what they cost.
_TYPICAL = 32

Predict = Callable[[str, Hyperparameters], float]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Say how a search is run: its budget, when trials stop, how many heads go together, and in what sense it scores.

    `workers` trials run at the same time. A group starts no more trials once one has reached `target`.
    """

    spending: Spending
    stopping: StoppingRule | None
    heads: int
    num_stages: int
    metric: Literal["val_accuracy", "val_loss"]
    seed: int
    workers: int = 1
    target: float | None = None

    @property
    def sign(self) -> float:
        """Give the factor that makes greater scores better."""
        return -1.0 if self.metric == "val_loss" else 1.0


class SearchEngine:
    """Hand out assignments over the groups' studies until the budget is spent and the finalists have raced."""

    def __init__(
        self,
        studies: Mapping[str, GroupStudy],
        space: SearchSpace,
        settings: EngineSettings,
        predict: Predict,
        finals: Callable[[Mapping[str, list[Trial]]], Finals],
        *,
        race_runs: Sequence[RaceRun] = (),
        elapsed_s: float = 0.0,
        closed: Collection[str] = (),
        apart: Mapping[str, SearchSpace] | None = None,
    ) -> None:
        """Continue from what the studies, earlier `race_runs` and `elapsed_s` seconds of search have left.

        Groups that are `closed` have their recipes: their trials count in every decision, and none is added. `apart`
        has the spaces of groups that are not searched in `space`: finds go to groups of the same space alone.
        """
        self._studies = studies
        self._space = space
        self._apart = dict(apart or {})
        self._settings = settings
        self._predict = predict
        self._make_finals = finals
        self._finals: Finals | None = None
        self._race_runs = list(race_runs)
        self._elapsed_s = elapsed_s
        self._closed = frozenset(closed)
        self._running: dict[str, Assignment] = {}
        self._started_s: dict[str, float] = {}
        self._typical = self._typical_of(space)
        self._typical_apart = {name: self._typical_of(own) for name, own in self._apart.items()}
        self._lost: set[tuple[str, tuple[Hyperparameters, ...], RaceRun | None]] = set()
        self._epochs: dict[str, list[EpochMetrics]] = {}

    @property
    def settings(self) -> EngineSettings:
        """Give how the search is run."""
        return self._settings

    @property
    def running(self) -> list[Assignment]:
        """List the assignments that were handed out and have not ended."""
        return list(self._running.values())

    @property
    def race_runs(self) -> list[RaceRun]:
        """List the finished runs of races."""
        return list(self._race_runs)

    def next(self, *, elapsed_s: float) -> Assignment | Literal["wait"] | None:
        """Give the next assignment; "wait" when it depends on one that runs, None when there is nothing more to do."""
        self._elapsed_s = elapsed_s
        assignment: Assignment | Literal["wait"] | None = self._next_trial() if self._finals is None else None
        if assignment is None:
            # The finalists are known when the last trial has ended.
            trials_run = any(running.race is None for running in self._running.values())
            assignment = "wait" if trials_run else self._next_race()
        if isinstance(assignment, Assignment):
            self._running[assignment.name] = assignment
            self._started_s[assignment.name] = elapsed_s
        return assignment

    def report(self, name: str, metrics: EpochMetrics, *, elapsed_s: float) -> bool:
        """Take an epoch of a single trial; tell whether it is to be stopped, which is so when the time is spent."""
        assignment = self._running.get(name)
        if assignment is None or assignment.kind != "trial":
            return False
        self._elapsed_s = elapsed_s
        values = self._epochs.setdefault(name, [])
        values.append(metrics)
        spending = self._settings.spending
        if elapsed_s >= spending.search_seconds or self._work_seconds() >= spending.search_work_seconds:
            return True
        rule = self._settings.stopping
        recipe = assignment.members[0].hyperparameters
        rung = None if rule is None else rule.rung_passed(metrics.epoch, recipe.epochs)
        if rule is None or rung is None:
            return False
        seen = self._seen(assignment.group, rung, strategy=self._strategy(recipe), without=name)
        return rule.stops(self._scores(values), seen, rung=rung)

    def epochs_of(self, name: str) -> list[EpochMetrics]:
        """Give the epochs that a running trial has reported."""
        return list(self._epochs.get(name, []))

    def finish(self, name: str, outcomes: Sequence[Trial]) -> Assignment | None:
        """Take what came of an assignment, a trial a member; gives the assignment, None for an unknown one."""
        assignment = self._forget(name)
        if assignment is None:
            return None
        if assignment.race is not None:
            (outcome,) = outcomes
            self._race_runs.append(
                assignment.race.model_copy(
                    update={"value": outcome.value, "seconds": outcome.seconds, "error": outcome.error}
                )
            )
            return assignment
        for member, outcome in zip(assignment.members, outcomes, strict=True):
            assert member.number is not None
            before = self._best(assignment.group)
            self._studies[assignment.group].record(member.number, outcome)
            self._promote(assignment.group, member, before)
        return assignment

    def lose(self, name: str) -> bool:
        """Take back an assignment whose worker died, to be handed out again; False for one that was lost before."""
        assignment = self._running.get(name)
        if assignment is None:
            return False
        what = (assignment.group, tuple(member.hyperparameters for member in assignment.members), assignment.race)
        if what in self._lost:
            return False
        self._lost.add(what)
        self._forget(name)
        for member in assignment.members:
            if member.number is not None:
                self._studies[assignment.group].take_back(member.number)
        return True

    def _forget(self, name: str) -> Assignment | None:
        self._epochs.pop(name, None)
        self._started_s.pop(name, None)
        return self._running.pop(name, None)

    def has_reached(self, group: str) -> bool:
        """Tell whether a trial of a group has reached the target."""
        if self._settings.target is None:
            return False
        best = self._best(group)
        return best is not None and best >= self._settings.sign * self._settings.target

    def finals(self) -> Finals:
        """Give the finals as far as they have been run."""
        finals = self._finals or self._make_finals({name: study.trials() for name, study in self._studies.items()})
        return finals.with_runs(self._race_runs)

    # Trials.

    def _next_trial(self) -> Assignment | None:
        states = [self._state(name) for name in self._studies]
        settings = self._settings
        move = next_move(states, settings.spending, elapsed_s=self._elapsed_s)
        if move is None:
            return None
        study = self._studies[move.group]
        if move.origin == "listed":
            return self._assign(move.group, self._ask_listed(study, self._room(states)))
        return self._assign(move.group, self._ask_sampled(study, self._room(states), move.seconds))

    def _ask_listed(self, study: GroupStudy, room: int) -> list[tuple[int, Hyperparameters]]:
        """Start the next listed trial, with the heads that are listed right behind it if it is one."""
        asked: list[tuple[int, Hyperparameters]] = []
        while (queued := study.queued()) and (not asked or self._is_head(queued[0])):
            found = study.ask("listed")
            if found is None:
                break
            asked.append(found)
            if not self._is_head(found[1]) or len(asked) >= min(room, self._settings.heads):
                break
        return asked

    def _ask_sampled(self, study: GroupStudy, room: int, seconds: float) -> list[tuple[int, Hyperparameters]]:
        first = study.ask("sampler", lambda drawn: self._pick(study, drawn, seconds))
        if first is None or not self._is_head(first[1]):
            return [] if first is None else [first]
        # More heads cost next to no time, but they count: a sixteenth of what the group may still try, and no more than
        # a quarter of what it tries in all.
        started = self._state(study.group).started
        heads = sum(self._is_head(trial.hyperparameters) for trial in study.trials())
        more = min(self._settings.heads - 1, room // (16 * max(1, len(self._studies))), started // 4 - heads)
        return [first, *study.ask_many(more, study.fixed_for_heads(first[1]))] if more > 0 else [first]

    def _pick(self, study: GroupStudy, drawn: list[Hyperparameters], seconds: float) -> int | None:
        trials = [trial for trial in study.trials() if trial.value is not None]
        predicted = [self._predict(study.group, recipe) for recipe in drawn]
        affordable = [index for index, cost in enumerate(predicted) if cost <= seconds]
        if not affordable:
            return None
        place = self._place_seconds(study.group)
        chosen = most_promising(
            [drawn[index] for index in affordable],
            [predicted[index] + place for index in affordable],
            [trial.hyperparameters for trial in trials],
            [self._settings.sign * trial.value for trial in trials if trial.value is not None],
            space=self._space_of(study.group),
            budget_left=self._budget_left(),
            seed=self._settings.seed,
        )
        return affordable[chosen]

    def _place_seconds(self, group: str) -> float:
        """Give what a place in the budget of trials is worth: the seconds of a trial from all over the space.

        Without it a head, a thousand times as cheap as full training, would always promise more for its cost, and
        the heads would use up the trials.
        """
        typical = self._typical_apart.get(group, self._typical)
        predicted = [self._predict(group, recipe) for recipe in typical]
        return sum(predicted) / max(1, len(predicted))

    def _assign(self, group: str, asked: list[tuple[int, Hyperparameters]]) -> Assignment | None:
        if not asked:
            return None
        members = tuple(
            Member(name=f"{group}-{number}", number=number, hyperparameters=recipe) for number, recipe in asked
        )
        is_heads = all(self._is_head(recipe) for _, recipe in asked)
        rungs = () if self._settings.stopping is None or not is_heads else self._settings.stopping.rungs
        return Assignment(
            kind="heads" if is_heads else "trial",
            group=group,
            members=members,
            seconds=max(self._predict(group, recipe) for _, recipe in asked),
            seen={rung: self._seen(group, rung, strategy=None) for rung in rungs},
        )

    def _promote(self, group: str, member: Member, before: float | None) -> None:
        """Give the other groups a recipe that beat everything in its own: a find for one is often one for all."""
        outcome = next(trial for trial in self._studies[group].trials() if trial.trial_id == member.name)
        if outcome.status != "complete" or outcome.value is None or outcome.origin != "sampler":
            return
        if before is not None and self._settings.sign * outcome.value <= before:
            return
        for other, study in self._studies.items():
            is_alike = self._space_of(other) == self._space_of(group)
            if other != group and is_alike and not self._is_closed(other) and not study.queued():
                study.enqueue(member.hyperparameters, "promoted")

    # What is known.

    def _state(self, name: str) -> GroupState:
        study = self._studies[name]
        running = [
            member
            for assignment in self._running.values()
            if assignment.group == name and assignment.race is None
            for member in assignment.members
        ]
        trials = sorted(study.trials(), key=lambda trial: trial.started + trial.seconds)
        is_closed = self._is_closed(name)
        return GroupState(
            group=name,
            queue=[] if is_closed else [self._predict(name, recipe) for recipe in study.queued()],
            running=len(running),
            is_closed=is_closed,
            values=[None if trial.value is None else self._settings.sign * trial.value for trial in trials],
            seconds=sum(trial.seconds for trial in trials)
            + sum(
                assignment.seconds
                for assignment in self._running.values()
                if assignment.group == name and assignment.race is None
            ),
        )

    def _work_seconds(self) -> float:
        """Give what trials have worked together, the running ones so far."""
        ended = sum(trial.seconds for study in self._studies.values() for trial in study.trials())
        running = (name for name, assignment in self._running.items() if assignment.race is None)
        return ended + sum(self._elapsed_s - self._started_s[name] for name in running)

    def _room(self, states: Sequence[GroupState]) -> int:
        """Count the trials that may still start."""
        return self._settings.spending.search_trials - sum(state.started for state in states)

    def _budget_left(self) -> float:
        """Give the share of the budget that is left: of trials, or of seconds where those are nearer to their end."""
        spending = self._settings.spending
        started = sum(self._state(name).started for name in self._studies)
        trials = 1 - started / max(1, spending.search_trials)
        seconds = 1 - self._elapsed_s / spending.search_seconds
        return min(1.0, max(0.0, min(trials, seconds)))

    def _space_of(self, group: str) -> SearchSpace:
        return self._apart.get(group, self._space)

    def _typical_of(self, space: SearchSpace) -> list[Hyperparameters]:
        settings = self._settings
        return shared_list(space, num_stages=settings.num_stages, heads=0, others=_TYPICAL, seed=settings.seed)

    def _strategy(self, recipe: Hyperparameters) -> StrategyName | None:
        return None if self._is_head_only(recipe) else recipe.strategy

    def _is_head_only(self, recipe: Hyperparameters) -> bool:
        return recipe.freeze_depth == self._settings.num_stages

    def _is_head(self, recipe: Hyperparameters) -> bool:
        """Tell whether a recipe is one of a stack of heads."""
        return self._is_head_only(recipe) and recipe.is_plain and self._settings.heads > 1

    def _is_closed(self, group: str) -> bool:
        """Tell whether a group starts no more trials: it has its recipe, or one has reached the target."""
        return group in self._closed or self.has_reached(group)

    def _best(self, group: str) -> float | None:
        values = [trial.value for trial in self._studies[group].trials() if trial.value is not None]
        return max((self._settings.sign * value for value in values), default=None)

    def _scores(self, epochs: Sequence[EpochMetrics]) -> list[float]:
        return [self._settings.sign * float(getattr(metrics, self._settings.metric)) for metrics in epochs]

    def _seen(
        self, group: str, rung: float, *, strategy: StrategyName | None, without: str | None = None
    ) -> tuple[float, ...]:
        """Give what the group's trials of a strategy, running ones too, had reached at a rung; None are heads alone.

        A head is at its level after an epoch or two, and would stop everything that overtakes it later; a strategy that
        begins with the head is behind others before it is done with it.
        """
        ended = [(trial.history, trial.hyperparameters) for trial in self._studies[group].trials()]
        running = [
            (epochs, self._running[name].members[0].hyperparameters)
            for name, epochs in self._epochs.items()
            if name != without and self._running[name].group == group
        ]
        found = (
            best_at(self._scores(history), rung, recipe.epochs)
            for history, recipe in [*ended, *running]
            if self._strategy(recipe) == strategy
        )
        return tuple(value for value in found if value is not None)

    # Races.

    def _next_race(self) -> Assignment | Literal["wait"] | None:
        if self._finals is None:
            self._finals = self._make_finals({name: study.trials() for name, study in self._studies.items()})
            self._finals = replace(self._finals, closed=self._closed)
        running = [assignment.race for assignment in self._running.values() if assignment.race is not None]
        run = self._finals.with_runs(self._race_runs).next_run(
            running,
            max_runs=self._settings.spending.race_trials,
            seconds=self._race_seconds(),
        )
        if run is None:
            return "wait" if running else None
        member = Member(name=run.name, number=None, hyperparameters=run.hyperparameters)
        return Assignment(kind="race", group=run.group, members=(member,), seconds=run.predicted_s, race=run)

    def _race_seconds(self) -> float:
        """Give the seconds of work that all races may take: a quarter of the trials', so a fifth of all."""
        spending = self._settings.spending
        spent = sum(trial.seconds for study in self._studies.values() for trial in study.trials())
        raced = sum(run.seconds for run in self._race_runs)
        left = math.inf if spending.seconds is None else max(0.0, spending.seconds - self._elapsed_s)
        work_left = math.inf if spending.work_seconds is None else spending.work_seconds - spent
        return min(spent / 4, raced + left * self._settings.workers, work_left)
