"""Chooses every group's recipe: pools the groups' scores, races the finalists, and says which won and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from orchestrator.errors import SearchError
from orchestrator.records import Hyperparameters, RaceRun, Recipe, Trial
from orchestrator.search.pooling import Matrix, PooledScores, pool_scores
from orchestrator.search.racing import INTERVAL, Finalist, Race, Role, decide, points
from orchestrator.storage import digest

# Half of the binomial variance of an accuracy is common to all recipes judged on the same images; a repeated
# training differs by about 0.7 points on top.
_OWN_SHARE = 0.5
_RUN_DEVIATION = 0.007
_OWN_FINALISTS = 2


@dataclass(frozen=True, kw_only=True)
class GroupFacts:
    """Hold what the choice needs to know of a group: its samples, the folds of a trial, the fixed rule as tried.

    What groups of one `kind` have tried is pooled: they are searched in the same space.
    """

    num_train: int
    num_validation: int
    fixed_rule: Hyperparameters
    folds: int = 1
    kind: str = ""

    @property
    def num_judged(self) -> int:
        """Count the samples that the value of a trial is a mean over: with folds every one has its turn."""
        return self.num_validation if self.folds == 1 else self.num_train + self.num_validation


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pool:
    """Hold the pooled scores of groups that are searched in one space: a row a group, a column a recipe of `keys`."""

    groups: list[str]
    keys: list[str]
    table: PooledScores

    @cached_property
    def best(self) -> str | None:
        """Name the recipe that is best over the groups, of those that half of them have tried."""
        pooled = self.table
        if len(self.groups) > 1 and np.isfinite(pooled.recipe_scores).any():
            tried = np.isfinite(pooled.shrunk).sum(axis=0)
            widely = tried >= max(2, math.ceil(len(self.groups) / 2))
            # Few observations are easily lucky ones: a standard error is taken off.
            sure = pooled.recipe_scores - np.sqrt(pooled.recipe_variances)
            if widely.any():
                return self.keys[int(np.argmax(np.where(widely, np.nan_to_num(sure, nan=-np.inf), -np.inf)))]
        return None

    def own(self, group: str) -> list[tuple[str, float]]:
        """List the usable recipes of a group with their scores, shrunk towards what the groups share."""
        row = self.table.shrunk[self.groups.index(group)]
        return [(key, float(score)) for key, score in zip(self.keys, row, strict=True) if math.isfinite(score)]

    def score(self, group: str, key: str) -> float:
        """Give what a group would score with a recipe, by its level and the recipe's effect."""
        row, column = self.groups.index(group), self.keys.index(key)
        effect = self.table.recipe_scores[column] - self.table.group_levels.mean()
        return float(self.table.group_levels[row] + effect)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finals:
    """Hold the finished trials of every group and the races of their finalists so far.

    A group has at most `most_finalists`, two at least: more than its share of a budget would leave others without.
    Groups that are `closed` have their recipes already: their trials count, and they race no more. `predict` gives
    the seconds of one training, which is what a run of a race is.
    """

    trials: Mapping[str, Sequence[Trial]]
    facts: Mapping[str, GroupFacts]
    metric: Literal["val_accuracy", "val_loss"]
    predict: Callable[[str, Hyperparameters], float]
    most_finalists: int = 4
    runs: Sequence[RaceRun] = ()
    closed: Collection[str] = ()

    @property
    def sign(self) -> float:
        """Give the factor that makes greater scores better."""
        return -1.0 if self.metric == "val_loss" else 1.0

    def with_runs(self, runs: Sequence[RaceRun]) -> Finals:
        """Give the same finals with these finished runs; of groups without a usable trial there are none."""
        finals = replace(self, runs=tuple(runs))
        # What the trials say does not change while finalists race: it is worked out once.
        finals.__dict__.update({name: self.__dict__[name] for name in ("_pools", "finalists") if name in self.__dict__})
        return finals

    def next_run(self, running: Sequence[RaceRun], *, max_runs: int, seconds: float) -> RaceRun | None:
        """Give the next run of a race; None when all wait for runs, are over, or the rest does not hold a round.

        The group with the fewest rounds goes first, and of those the one whose round costs most: the others' still fit
        into what it leaves. A round starts only when all of it fits into `max_runs` runs and `seconds` of work, those
        that were run counted.
        """
        taken = {(run.group, run.recipe, run.resplit) for run in [*self.runs, *running]}
        runs_left = max_runs - len(self.runs) - len(running)
        seconds_left = seconds - sum(run.seconds for run in self.runs) - sum(run.predicted_s for run in running)
        races = {group: self.race(group) for group in self.finalists if group not in self.closed}
        costs = {group: sum(finalist.seconds for finalist in race.survivors) for group, race in races.items()}
        for group in sorted(races, key=lambda name: (races[name].rounds, -costs[name])):
            planned = races[group].next_runs()
            missing = [entry for entry in planned if (group, entry[0].key, entry[1]) not in taken]
            started = len(missing) < len(races[group].survivors)
            cost = sum(finalist.seconds for finalist, _ in missing)
            if missing and (started or (len(missing) <= runs_left and cost <= seconds_left)):
                return self._run(group, *missing[0])
        return None

    def race(self, group: str) -> Race:
        """Give the state of a group's race."""
        facts = self.facts[group]
        best = max((score for _, score in self._own(group)), default=0.0)
        return Race(
            finalists=self.finalists[group],
            scores={
                (run.recipe, run.resplit): None if run.value is None else self.sign * run.value
                for run in self.runs
                if run.group == group
            },
            noise=math.sqrt(2 * noise_variance(best, facts.num_validation, self.metric)),
            overlap=facts.num_validation / max(1, facts.num_train),
        )

    def recipe(self, group: str) -> Recipe:
        """Choose a group's recipe. Raises SearchError listing the errors when none of its trials is usable."""
        if group not in self.finalists:
            raise _nothing_usable(group, self.trials[group])
        verdict = decide(
            self.race(group),
            incumbent=self._incumbent(group),
            name="the recipe of the best trial" if self._pool(group).best is None else "the pooled recipe",
            describe=self._describe,
        )
        if verdict is None:
            key, reason = self._unraced(group)
            role = self._role(group, key)
            score = error = None
            runs = 0
        else:
            key, role, reason = verdict.finalist.key, verdict.finalist.role, verdict.reason
            score, error, runs = self.sign * verdict.score, verdict.standard_error, verdict.runs
        hyperparameters = self._recipes[key]
        source, is_own = self._trial_of(group, hyperparameters)
        return Recipe(
            group=group,
            trial_id=source.trial_id,
            metric=self.metric,
            value=source.value if is_own else None,
            hyperparameters=hyperparameters,
            origin=role,
            reason=reason,
            score=score,
            standard_error=error,
            runs=runs,
        )

    @cached_property
    def finalists(self) -> dict[str, list[Finalist]]:
        """Give the finalists of every group that has a usable trial: the pooled best, its own, and the fixed rule.

        The fixed rule stays out where its trial was hopeless.
        """
        return {group: self._finalists(group) for group in self.trials if self._own(group)}

    def _finalists(self, group: str) -> list[Finalist]:
        incumbent = self._incumbent(group)
        fixed = key_of(self.facts[group].fixed_rule)
        own = sorted(self._own(group), key=lambda entry: entry[1], reverse=True)
        names: dict[str, Role] = {incumbent: "group" if self._pool(group).best is None else "pooled"}
        # The pooled recipe, the group's own, and a place for the fixed rule; two where the budget is small.
        most = min(1 + _OWN_FINALISTS, max(2, self.most_finalists - 1))
        for key in [key for key, _ in own if key != fixed][: _OWN_FINALISTS + 1]:
            if len(names) < most:
                names.setdefault(key, "group")
        scores = dict(own)
        spread = 4 * self._trial_noise(group, own[0][1])
        if len(names) < max(2, self.most_finalists) and scores.get(fixed, -math.inf) > own[0][1] - spread:
            # In a space without its head, the rule has become another recipe of the group's.
            names.setdefault(fixed, "fixed_rule")
        return [
            Finalist(key=key, role=role, seconds=self.predict(group, self._recipes[key])) for key, role in names.items()
        ]

    def _incumbent(self, group: str) -> str:
        """Name the recipe that is best over all groups, or the group's own best where none was tried widely."""
        return self._pool(group).best or max(self._own(group), key=lambda entry: entry[1])[0]

    def _role(self, group: str, key: str) -> Role:
        roles = {finalist.key: finalist.role for finalist in self.finalists[group]}
        return roles.get(key, "fixed_rule" if key == key_of(self.facts[group].fixed_rule) else "group")

    def _unraced(self, group: str) -> tuple[str, str]:
        """Choose without a race: the best by the trials, or a cheaper recipe within its standard error over folds."""
        why = "no run of it has ended well" if any(run.group == group for run in self.runs) else "the budget held none"
        best, reason = self._best_by_trials(group, why)
        cheaper = self._cheaper(group, best)
        if cheaper is None:
            return best, reason
        return cheaper, f"within one standard error of the best over the folds, and cheaper, without a race: {why}"

    def _cheaper(self, group: str, best: str) -> str | None:
        """Name the cheapest recipe that the group tried within one standard error of another, cheaper than that.

        That is the rule of Breiman et al., "Classification and Regression Trees" (1984). None where the other has no
        standard error. A recipe of the group's own has to win, not to be cheap.
        """
        tried = {key_of(trial.hyperparameters): trial for trial in self._usable_of(group)}
        error = tried[best].standard_error if best in tried else None
        if error is None:
            return None
        level = self._score(tried[best]) - error
        seconds = {key: self.predict(group, self._recipes[key]) for key in tried}
        found = [
            key
            for key, trial in tried.items()
            if seconds[key] < seconds[best]
            and self._score(trial) >= level
            and (self._role(group, key) != "group" or self._role(group, best) == "group")
        ]
        return min(found, key=lambda key: (seconds[key], -self._score(tried[key])), default=None)

    def _best_by_trials(self, group: str, why: str) -> tuple[str, str]:
        """Name the incumbent, unless the group's own best is better beyond the interval; and say so."""
        incumbent = self._incumbent(group)
        if self._pool(group).best is None:
            return incumbent, f"the best trial, without a race: {why}"
        own = dict(self._own(group))
        best = max(own, key=lambda key: own[key])
        noise = self._trial_noise(group, own[best])
        level = self._pooled_score(group, incumbent)
        if best != incumbent and own[best] - own.get(incumbent, level) > INTERVAL * noise:
            return best, f"its trial beat the pooled recipe beyond the interval, without a race: {why}"
        return incumbent, f"best over all groups, without a race: {why}"

    def _describe(self, difference: float) -> str:
        return f"{difference:.3f} nats" if self.metric == "val_loss" else points(difference)

    def _pooled_score(self, group: str, key: str) -> float:
        return self._pool(group).score(group, key)

    def _own(self, group: str) -> list[tuple[str, float]]:
        """List a group's usable recipes with their scores, shrunk towards what the groups share."""
        return self._pool(group).own(group)

    def _pool(self, group: str) -> _Pool:
        return self._pools[self.facts[group].kind]

    @cached_property
    def _pools(self) -> dict[str, _Pool]:
        """Pool the scores of the groups of each kind."""
        kinds = dict.fromkeys(self.facts[group].kind for group in self.trials)
        return {kind: self._pooled([name for name in self.trials if self.facts[name].kind == kind]) for kind in kinds}

    def _pooled(self, groups: list[str]) -> _Pool:
        usable = [trial for group in groups for trial in self._usable_of(group)]
        keys = list(dict.fromkeys(key_of(trial.hyperparameters) for trial in usable))
        scores = np.full((len(groups), len(keys)), np.nan)
        for row, group in enumerate(groups):
            for trial in self._usable_of(group):
                scores[row, keys.index(key_of(trial.hyperparameters))] = self._score(trial)
        return _Pool(groups=groups, keys=keys, table=pool_scores(scores, self._variances(groups, scores)))

    def _variances(self, groups: list[str], scores: Matrix) -> Matrix:
        variances = np.ones_like(scores)
        for row, facts in enumerate(self.facts[group] for group in groups):
            for column, score in enumerate(scores[row]):
                if math.isfinite(score):
                    variances[row, column] = self._trial_variance(facts, score)
        return variances

    def _trial_noise(self, group: str, score: float) -> float:
        """Give the standard deviation of a difference of two trials."""
        return math.sqrt(2 * self._trial_variance(self.facts[group], score))

    def _trial_variance(self, facts: GroupFacts, score: float) -> float:
        # A few folds tell little of their own spread, and a part of it all recipes share: what is known beforehand.
        return noise_variance(score, facts.num_judged, self.metric, trainings=facts.folds)

    @cached_property
    def _recipes(self) -> dict[str, Hyperparameters]:
        return {key_of(trial.hyperparameters): trial.hyperparameters for trial in self._usable()}

    def _usable(self) -> list[Trial]:
        return [trial for group in self.trials for trial in self._usable_of(group)]

    def _usable_of(self, group: str) -> list[Trial]:
        return [trial for trial in self.trials[group] if trial.status == "complete" and trial.value is not None]

    def _score(self, trial: Trial) -> float:
        assert trial.value is not None
        return self.sign * trial.value

    def _trial_of(self, group: str, hyperparameters: Hyperparameters) -> tuple[Trial, bool]:
        """Find the trial of a recipe: the group's own, which the second value says, else another group's."""
        own = {trial.trial_id for trial in self.trials[group]}
        found = [trial for trial in self._usable() if trial.hyperparameters == hyperparameters]
        source = min(found, key=lambda trial: trial.trial_id not in own)
        return source, source.trial_id in own

    def _run(self, group: str, finalist: Finalist, resplit: int) -> RaceRun:
        return RaceRun(
            group=group,
            recipe=finalist.key,
            hyperparameters=self._recipes[finalist.key],
            resplit=resplit,
            predicted_s=finalist.seconds,
        )


def key_of(hyperparameters: Hyperparameters) -> str:
    """Name a recipe by what is in it."""
    return digest(hyperparameters.model_dump(mode="json"))[:12]


def noise_variance(score: float, num_validation: int, metric: str, *, trainings: int = 1) -> float:
    """Give the variance of a validation score that another recipe's score on the same images does not share.

    It is a mean over `num_validation` images, judged by `trainings` models together.
    """
    if metric == "val_loss":
        # Of the order of what single losses vary by around their mean.
        return _OWN_SHARE * score**2 / max(1, num_validation)
    accuracy = min(max(score, 0.02), 0.98)
    return _OWN_SHARE * accuracy * (1 - accuracy) / max(1, num_validation) + _RUN_DEVIATION**2 / trainings


def _nothing_usable(group: str, trials: Sequence[Trial]) -> SearchError:
    counts: dict[str, int] = {}
    for trial in trials:
        text = trial.error or "no value"
        counts[text] = counts.get(text, 0) + 1
    errors = "; ".join(f"{text} ({count}x)" for text, count in counts.items()) or "none"
    return SearchError(
        f"the search of group {group} needs at least one completed trial",
        value=f"{len(trials)} trials, errors: {errors}",
        remedy="Mend the cause of these errors, give search.space values that can be trained, or raise search.budget.",
    )
