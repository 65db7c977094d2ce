"""Made-up groups whose recipes have known true values: what a search would see, and what its choice is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from search_examples import a_search, a_trial

from orchestrator.records import Hyperparameters, RaceRun, Trial
from orchestrator.search.finals import Finals, GroupFacts
from orchestrator.search.space import SearchSpace

NUM_STAGES = 6
NUM_GROUPS = 4
GROUPS = [f"g{index}" for index in range(NUM_GROUPS)]
# One trial's score on the same images differs from another's by this much beyond what the images share.
RUN_DEVIATION = 0.007
TRAIN_PER_VALIDATION = 5


@dataclass(frozen=True)
class Surface:
    """True accuracies: a peak over depth and the logarithm of the rate, the same for all groups or one for each."""

    level: NDArray[np.float64]
    depth: NDArray[np.float64]
    rate: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, differ: bool) -> Surface:
        depth = np.full(NUM_GROUPS, rng.uniform(2.5, 4.5))
        rate = np.full(NUM_GROUPS, rng.uniform(0.4, 0.7))
        if differ:
            depth += rng.permutation([-2.0, -2.0, 2.0, 2.0])
            rate = np.clip(rate + rng.permutation([-0.25, 0.25, -0.25, 0.25]), 0, 1)
        return cls(level=rng.uniform(0.75, 0.9, NUM_GROUPS), depth=depth, rate=rate)

    def value(self, group: int, recipe: Hyperparameters) -> float:
        place = (math.log10(recipe.learning_rate) + 4) / 3
        loss = 0.012 * (recipe.freeze_depth - self.depth[group]) ** 2 + 0.5 * (place - self.rate[group]) ** 2
        return float(self.level[group] - loss)


@dataclass
class Simulation:
    """A search over a surface, with validation sets of a given size; `noise` times what the choice takes it to be."""

    surface: Surface
    num_validation: int
    rng: np.random.Generator
    noise: float = 1.0

    def __post_init__(self) -> None:
        self.common = self.rng.normal(0, self._deviation, NUM_GROUPS)
        self._of_pool: dict[tuple[int, Hyperparameters], float] = {}

    @property
    def _deviation(self) -> float:
        return self.noise * math.sqrt(0.5 * 0.16 / self.num_validation)

    def observe(self, group: int, recipe: Hyperparameters) -> float:
        own = self.rng.normal(0, math.hypot(self._deviation, self.noise * RUN_DEVIATION))
        return float(np.clip(self.surface.value(group, recipe) + own + self.common[group], 0, 1))

    def race_on(self, group: int, recipe: Hyperparameters) -> float:
        """Observe a recipe on a fresh re-split: what the pool of samples makes of it stays, the rest is drawn anew.

        Runs correlate by the share of validation in the pool, as Nadeau and Bengio assume.
        """
        share = 1 / (1 + TRAIN_PER_VALIDATION)
        deviation = math.hypot(self._deviation, self.noise * RUN_DEVIATION)
        key = (group, recipe)
        if key not in self._of_pool:
            self._of_pool[key] = self.rng.normal(0, deviation * math.sqrt(share))
        own = self._of_pool[key] + self.rng.normal(0, deviation * math.sqrt(1 - share))
        return float(np.clip(self.surface.value(group, recipe) + own + self.common[group], 0, 1))

    def draw(self) -> Hyperparameters:
        space = SearchSpace.from_config(a_search().space, NUM_STAGES)
        depth = int(self.rng.integers(0, NUM_STAGES + 1))
        return space.complete({"freeze_depth": depth, "learning_rate": 10 ** self.rng.uniform(-4, -1), "epochs": 4})

    def near(self, recipe: Hyperparameters) -> Hyperparameters:
        depth = int(np.clip(recipe.freeze_depth + self.rng.integers(-1, 2), 0, NUM_STAGES))
        rate = float(np.clip(recipe.learning_rate * 10 ** self.rng.normal(0, 0.35), 1e-4, 1e-1))
        return recipe.model_copy(update={"freeze_depth": depth, "learning_rate": rate})

    def search(self, *, num_samples: int, race_runs: int) -> Finals:
        """Shared recipes, then each group's own around its best, finds handed on; then the races."""
        shared = [self.draw() for _ in range(num_samples // 2)]
        trials = {group: [self.trial(index, recipe) for recipe in shared] for index, group in enumerate(GROUPS)}
        queues: dict[str, list[Hyperparameters]] = {group: [] for group in GROUPS}
        for _ in range(num_samples - len(shared) - race_runs // NUM_GROUPS):
            for index, group in enumerate(GROUPS):
                best = max(trials[group], key=lambda trial: trial.value or 0.0)
                own = not queues[group]
                explored = self.draw() if self.rng.random() < 0.4 else self.near(best.hyperparameters)
                recipe = explored if own else queues[group].pop()
                trials[group].append(self.trial(index, recipe))
                if own and (trials[group][-1].value or 0.0) > (best.value or 0.0):
                    for other in GROUPS:
                        if other != group and not queues[other]:
                            queues[other].append(recipe)
        return self.race(trials, race_runs)

    def race(self, trials: dict[str, list[Trial]], race_runs: int) -> Finals:
        named = {
            group: [trial.model_copy(update={"trial_id": f"{group}-{index}"}) for index, trial in enumerate(found)]
            for group, found in trials.items()
        }
        facts = GroupFacts(
            num_train=TRAIN_PER_VALIDATION * self.num_validation,
            num_validation=self.num_validation,
            fixed_rule=self.draw(),
        )
        finals = Finals(
            trials=named,
            facts=dict.fromkeys(GROUPS, facts),
            metric="val_accuracy",
            predict=lambda group, recipe: float(7 - recipe.freeze_depth),
        )
        runs: list[RaceRun] = []
        while (run := finals.next_run([], max_runs=race_runs, seconds=math.inf)) is not None:
            value = self.race_on(GROUPS.index(run.group), run.hyperparameters)
            runs.append(run.model_copy(update={"value": value, "seconds": run.predicted_s}))
            finals = finals.with_runs(runs)
        return finals

    def trial(self, group: int, recipe: Hyperparameters) -> Trial:
        return a_trial(recipe, self.observe(group, recipe))

    def worth(self, finals: Finals) -> float:
        """Give the mean true value of the chosen recipes."""
        chosen = [finals.recipe(group).hyperparameters for group in GROUPS]
        return float(np.mean([self.surface.value(index, recipe) for index, recipe in enumerate(chosen)]))

    def worth_of_one_for_all(self, *, num_samples: int) -> float:
        """Give the true value of the recipe that one search over all groups together would choose, at equal cost."""
        tried = [self.draw() for _ in range(num_samples // 2)]
        scores = [self._mean_score(recipe) for recipe in tried]
        for _ in range(num_samples - len(tried)):
            best = tried[int(np.argmax(scores))]
            tried.append(self.draw() if self.rng.random() < 0.4 else self.near(best))
            scores.append(self._mean_score(tried[-1]))
        chosen = tried[int(np.argmax(scores))]
        return float(np.mean([self.surface.value(index, chosen) for index in range(NUM_GROUPS)]))

    def _mean_score(self, recipe: Hyperparameters) -> float:
        return float(np.mean([self.observe(index, recipe) for index in range(NUM_GROUPS)]))
