"""Runs off the finalists of a group on fresh re-splits, where no score was picked for being lucky."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Role = Literal["group", "pooled", "fixed_rule"]
INTERVAL = 1.96


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """Hold one recipe of a race: `key` names it, `seconds` is what a run of it is predicted to take."""

    key: str
    role: Role
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Race:
    """Hold the state of a group's race.

    `scores` maps (finalist, re-split) to the validation score there, greater being better; None is a run that
    failed. `noise` is the standard deviation of a paired difference on one re-split, as known beforehand;
    `overlap` the number of validation samples over that of training samples in a re-split.
    """

    finalists: Sequence[Finalist]
    scores: Mapping[tuple[str, int], float | None]
    noise: float
    overlap: float
    max_rounds: int = 5

    @property
    def rounds(self) -> int:
        """Count the re-splits on which everyone who was still in the race has run."""
        return self._replay()[1]

    @property
    def survivors(self) -> list[Finalist]:
        """List the finalists that are still in the race."""
        return self._replay()[0]

    def next_runs(self) -> list[tuple[Finalist, int]]:
        """List the runs (finalist, re-split) that the next round still needs; none when the race is over."""
        alive, rounds = self._replay()
        if len(alive) < 2 or rounds >= self.max_rounds:
            return []
        return [(finalist, rounds) for finalist in alive if (finalist.key, rounds) not in self.scores]

    def compare(self, one: str, other: str) -> tuple[float, float, int]:
        """Give the mean paired difference of two finalists, its standard error, and the number of re-splits.

        Re-splits share samples, so that their scores are not independent: the variance is corrected as in Nadeau
        and Bengio, "Inference for the Generalization Error" (2003). Without common re-splits the error is infinite.
        """
        return self._compare(one, other, self.max_rounds)

    def _replay(self) -> tuple[list[Finalist], int]:
        """Play the rounds again: who is out does not depend on the order in which runs came back."""
        alive = list(self.finalists)
        for played in range(self.max_rounds):
            if len(alive) < 2 or any((finalist.key, played) not in self.scores for finalist in alive):
                return alive, played
            alive = self._eliminate(alive, played + 1)
        return alive, self.max_rounds

    def _eliminate(self, alive: list[Finalist], rounds: int) -> list[Finalist]:
        """Drop who is behind the leader by more than the interval, and whose run failed."""
        fit = [finalist for finalist in alive if self.scores[finalist.key, rounds - 1] is not None]
        if not fit:
            return []
        leader = max(fit, key=lambda finalist: (self._mean(finalist.key, rounds), -finalist.seconds))
        kept = []
        for finalist in fit:
            difference, error, _ = self._compare(leader.key, finalist.key, rounds)
            if finalist is leader or difference <= INTERVAL * error:
                kept.append(finalist)
        return kept

    def _mean(self, key: str, rounds: int) -> float:
        return float(np.mean([score for played in range(rounds) if (score := self.scores[key, played]) is not None]))

    def _compare(self, one: str, other: str, rounds: int) -> tuple[float, float, int]:
        differences = [
            first - second
            for played in range(rounds)
            if (first := self.scores.get((one, played))) is not None
            and (second := self.scores.get((other, played))) is not None
        ]
        count = len(differences)
        if count == 0:
            return 0.0, math.inf, 0
        # A few differences tell little of their own spread: what was known before counts as two of them.
        mean = float(np.mean(differences))
        spread = sum((difference - mean) ** 2 for difference in differences)
        variance = (2 * self.noise**2 + spread) / (2 + count - 1)
        return mean, math.sqrt(variance * (1 / count + self.overlap)), count


def points(difference: float) -> str:
    """Write a difference of two accuracies."""
    return f"{100 * difference:.1f} points"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Say which finalist a group gets, and why; `score` and `standard_error` are of its runs in the race."""

    finalist: Finalist
    score: float
    standard_error: float
    runs: int
    reason: str


def decide(
    race: Race, *, incumbent: str, name: str = "the pooled recipe", describe: Callable[[float], str] = points
) -> Verdict | None:
    """Give the group's own best only when it beats the incumbent, which `name` says in words, beyond its interval.

    Otherwise the incumbent, or a cheaper finalist within one standard error of it. None when the incumbent has no
    run to be compared by. `describe` writes a difference with its unit.
    """
    scored = [finalist for finalist in race.finalists if _scores(race, finalist.key)]
    by_key = {finalist.key: finalist for finalist in scored}
    if incumbent not in by_key:
        return None
    chosen, reason = by_key[incumbent], "no recipe beat it beyond the interval"
    rivals = [finalist for finalist in race.survivors if finalist.key != incumbent and finalist.key in by_key]
    wins = []
    for rival in rivals:
        difference, error, _ = race.compare(rival.key, incumbent)
        if difference > INTERVAL * error:
            wins.append((difference, error, rival))
    if wins:
        difference, error, chosen = max(wins, key=lambda win: win[0])
        reason = f"better than {name} by {describe(difference)} (standard error {describe(error)})"
    cheaper = [
        finalist
        for finalist in [*rivals, by_key[incumbent]]
        # A recipe of the group's own has to win, not to be cheap.
        if (finalist.role != "group" or chosen.role == "group")
        and finalist.seconds < chosen.seconds
        and _within_one_error(race, chosen.key, finalist.key)
    ]
    if cheaper:
        chosen = min(cheaper, key=lambda finalist: finalist.seconds)
        reason = "within one standard error of the best, and cheaper"
    scores = _scores(race, chosen.key)
    variance = (2 * race.noise**2 / 2 + float(np.var(scores)) * len(scores)) / (2 + len(scores) - 1)
    return Verdict(
        finalist=chosen,
        score=float(np.mean(scores)),
        standard_error=math.sqrt(variance * (1 / len(scores) + race.overlap)),
        runs=len(scores),
        reason=reason,
    )


def _within_one_error(race: Race, better: str, cheaper: str) -> bool:
    difference, error, count = race.compare(better, cheaper)
    return count > 1 and difference <= error


def _scores(race: Race, key: str) -> list[float]:
    return [score for (name, _), score in race.scores.items() if name == key and score is not None]
