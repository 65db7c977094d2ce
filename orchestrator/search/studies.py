"""The study of one group: what was tried, kept in a storage that outlives the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.config import SearchConfig
from orchestrator.errors import SearchError
from orchestrator.records import PLAIN_CHOICES, Hyperparameters, Trial, TrialOrigin
from orchestrator.search.proposals import parameters_of, propose, quiet_optuna
from orchestrator.search.samplers import check_sampler
from orchestrator.search.space import ParameterValue, SearchSpace
from orchestrator.search.study_storage import open_storage
from orchestrator.search.trial_attributes import details_of, finite_history, is_result, origin_of, place_of, record_of

NUM_CANDIDATES = 8

Asked = tuple[int, Hyperparameters]


class GroupStudy:
    """Ask for the trials of one group and record what they found; changes are stored when a method returns.

    A listed trial enters the queue with all its parameters and is started from there, a drawn one is stored as it
    starts; each ends in one step after its details: a process that dies leaves whole trials behind. One process at a
    time may own a study.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        *,
        group: str,
        space: SearchSpace,
        search: SearchConfig,
        seed: int,
        num_candidates: int = NUM_CANDIDATES,
    ) -> None:
        """Take a study that is open already; `open` makes one from a storage."""
        self.group = group
        self._study = study
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._space = space
        self._search = search
        self._seed = seed
        self._num_candidates = num_candidates
        self._records: dict[int, Trial] = {}

    @classmethod
    def open(
        cls,
        journal_path: Path,
        *,
        group: str,
        name: str,
        space: SearchSpace,
        search: SearchConfig,
        seed: int,
        first: Hyperparameters,
        storage: str | None = None,
        num_candidates: int = NUM_CANDIDATES,
    ) -> GroupStudy:
        """Open the study `name`, made when missing; its first listed trial is `first`, clipped.

        It is kept in the journal, or in the database at the Optuna URL `storage`; one may hold the studies of several
        groups. Raises StorageError when the database cannot be opened, SearchError when the sampler cannot work on
        the space or the stored study has another direction.
        """
        check_sampler(search.sampler, space)
        with quiet_optuna():
            opened_storage = open_storage(journal_path, storage)
            study = optuna.create_study(
                storage=opened_storage,
                study_name=name,
                load_if_exists=True,
                direction=_direction(search),
                # Every trial is stored with its parameters: this sampler is never consulted.
                sampler=optuna.samplers.RandomSampler(seed=seed),
            )
        _require_direction(study, search)
        opened = cls(
            study, opened_storage, group=group, space=space, search=search, seed=seed, num_candidates=num_candidates
        )
        if not any(origin_of(trial) == "fixed_rule" for trial in opened._all_trials()):
            opened._enqueue(space.parameters(space.clip(first)), origin="fixed_rule")
        return opened

    def reconcile(self) -> int:
        """End the trials that a dead process left running and queue each one's parameters once; count them.

        A trial that is queued again keeps its origin and goes first. Call before the first `ask`, and
        never while another process works on the study.
        """
        left_running = [trial.number for trial in self._all_trials() if trial.state == TrialState.RUNNING]
        for number in left_running:
            self.take_back(number)
        return len(left_running)

    def take_back(self, number: int) -> None:
        """End a running trial whose worker is gone, and queue its configuration again, to go first."""
        trials = self._all_trials()
        trial = next(trial for trial in trials if trial.number == number)
        already_queued = {trial.user_attrs.get("repeats") for trial in trials}
        # Queued first: dying between the two steps must lose no trial, and repeats none.
        parameters = parameters_of(trial)
        if parameters and number not in already_queued:
            self._enqueue(parameters, origin=origin_of(trial), repeats=number, place=place_of(trial)[1])
        self._set_attribute(number, "interrupted", True)
        self._study.tell(number, state=TrialState.FAIL)

    def enqueue(self, hyperparameters: Hyperparameters, origin: TrialOrigin) -> bool:
        """List a configuration, clipped to the space; False, and nothing done, when the study knows it already."""
        parameters = self._space.parameters(self._space.clip(hyperparameters))
        if any(parameters_of(trial) == parameters for trial in self._all_trials()):
            return False
        self._enqueue(parameters, origin=origin)
        return True

    def queued(self) -> list[Hyperparameters]:
        """Give the listed configurations in the order in which they will start."""
        return [self._space.complete(parameters_of(trial)) for trial in self._waiting()]

    def ask(
        self,
        origin: Literal["listed", "sampler"] = "sampler",
        candidates: Callable[[list[Hyperparameters]], int | None] | None = None,
    ) -> Asked | None:
        """Start a trial: its number and configuration; None when a listed one is wanted and none is, or none chosen.

        "listed" starts the next of the queue. "sampler" draws configurations that differ and starts the one whose
        index `candidates` gives, by default the first; a configuration comes twice only when the space holds no other.
        """
        if origin == "listed":
            return self._start_listed()
        drawn = self._propose(1 if candidates is None else self._num_candidates, {}) or [self._repeat()]
        chosen = 0 if candidates is None else candidates(drawn)
        return None if chosen is None else self._start(drawn[chosen])

    def ask_many(self, count: int, fixed: Mapping[str, ParameterValue]) -> list[Asked]:
        """Start `count` drawn trials with some values fixed, all of them new; fewer when the space holds no more.

        Raises SearchError when a fixed value is not in the space.
        """
        return [self._start(drawn) for drawn in self._propose(count, fixed)]

    def fixed_for_heads(self, recipe: Hyperparameters) -> dict[str, ParameterValue]:
        """Give the searched values that heads trained together with a plain head share, so that all are plain."""
        values = self._space.parameters(recipe)
        return {name: value for name, value in values.items() if name not in PLAIN_CHOICES}

    def record(self, number: int, trial: Trial) -> None:
        """End a running trial: complete, stopped, or failed when it failed or its value is not finite.

        A stopped trial is a pruned one to Optuna. Epochs with a metric that is not finite are left out of the
        history. Raises SearchError when `number` is not running.
        """
        self._require_running(number)
        details = details_of(trial)
        for key, detail in details.items():
            self._set_attribute(number, key, detail)
        for epoch in finite_history(trial):
            step_value: float = getattr(epoch, self._search.metric)
            self._storage.set_trial_intermediate_value(self._trial_id(number), epoch.epoch, step_value)
        if details["error"] is not None:
            self._study.tell(number, state=TrialState.FAIL)
        elif trial.status == "stopped":
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, trial.value)

    def progress(self) -> int:
        """Count the trials that were started: running ones, and finished ones that were not interrupted."""
        return sum(trial.state == TrialState.RUNNING or is_result(trial) for trial in self._all_trials())

    def trials(self) -> list[Trial]:
        """List the finished trials in the order they were asked, without the interrupted ones."""
        return [self._to_record(trial) for trial in self._all_trials() if is_result(trial)]

    def _propose(self, count: int, fixed: Mapping[str, ParameterValue]) -> list[Hyperparameters]:
        return propose(
            self._all_trials(),
            space=self._space,
            direction=_direction(self._search),
            sampler=self._search.sampler,
            seed=self._seed,
            group=self.group,
            count=count,
            fixed=fixed,
        )

    def _repeat(self) -> Hyperparameters:
        """Give the configuration that was tried longest ago, of a space that holds no new one."""
        trials = [trial for trial in self._all_trials() if parameters_of(trial)]
        latest = {tuple(parameters_of(trial).items()): trial for trial in trials}
        return self._space.complete(parameters_of(min(latest.values(), key=lambda trial: trial.number)))

    def _start(self, hyperparameters: Hyperparameters) -> Asked:
        parameters = self._space.parameters(hyperparameters)
        # One entry holds all of it: no instant exists at which a trial runs without its parameters.
        started = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions=dict(self._space.distributions),
            user_attrs={"parameters": parameters, "origin": "sampler"},
        )
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=started)
        return self._storage.get_trial_number_from_id(trial_id), hyperparameters

    def _start_listed(self) -> Asked | None:
        waiting = self._waiting()
        if not waiting:
            return None
        number = waiting[0].number
        self._storage.set_trial_state_values(self._trial_id(number), TrialState.RUNNING)
        with quiet_optuna():
            return number, self._space.suggest(optuna.trial.Trial(self._study, self._trial_id(number)))

    def _waiting(self) -> list[FrozenTrial]:
        waiting = [trial for trial in self._all_trials() if trial.state == TrialState.WAITING]
        return sorted(waiting, key=place_of)

    def _to_record(self, trial: FrozenTrial) -> Trial:
        # What is finished never changes, and a search reads it at every epoch of every trial.
        if trial.number not in self._records:
            self._records[trial.number] = record_of(trial, group=self.group, space=self._space)
        return self._records[trial.number]

    def _all_trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _enqueue(self, parameters: Mapping[str, ParameterValue], **attributes: object) -> None:
        with quiet_optuna():
            self._study.enqueue_trial(dict(parameters), user_attrs={"parameters": dict(parameters), **attributes})

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _set_attribute(self, number: int, key: str, value: object) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), key, value)

    def _require_running(self, number: int) -> None:
        running = [trial.number for trial in self._all_trials() if trial.state == TrialState.RUNNING]
        if number not in running:
            raise SearchError(
                f"only a running trial of group {self.group} can be recorded",
                value=f"{number} while {running} run",
                remedy="Record each trial once, with the number that ask() gave.",
            )


def _direction(search: SearchConfig) -> StudyDirection:
    return StudyDirection.MAXIMIZE if search.direction == "max" else StudyDirection.MINIMIZE


def _require_direction(study: optuna.Study, search: SearchConfig) -> None:
    if study.direction != _direction(search):
        raise SearchError(
            f"the stored study {study.study_name} must {_direction(search).name.lower()} {search.metric}",
            value=study.direction.name.lower(),
            remedy="Choose another search.study_name.",
        )
