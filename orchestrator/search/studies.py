"""The study of one group: what was tried, kept in a journal that outlives the process."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.config import SearchConfig
from orchestrator.errors import SearchError
from orchestrator.records import EpochMetrics, Hyperparameters, Trial
from orchestrator.search.proposals import propose, quiet_optuna
from orchestrator.search.scheduling import GroupProgress
from orchestrator.search.space import ParameterValue, SearchSpace


class GroupStudy:
    """Ask for the trials of one group and record what they found; changes are on disk when a method returns.

    A trial enters the queue with all its parameters, is started from there, and ends in one step after its
    details: a process that dies leaves whole trials behind. One process at a time may own a study.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: JournalStorage,
        *,
        group: str,
        space: SearchSpace,
        search: SearchConfig,
        seed: int,
    ) -> None:
        """Take a study that is open already; `open` makes one from a journal."""
        self.group = group
        self._study = study
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._space = space
        self._search = search
        self._seed = seed

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
    ) -> GroupStudy:
        """Open the study `name` of a journal, made when missing; its first trial is `first`, clipped.

        One journal may hold the studies of several groups.
        """
        # Absolute, because the lock is a symbolic link to the journal.
        path = journal_path.expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_entry(path)
        with quiet_optuna():
            storage = JournalStorage(JournalFileBackend(str(path)))
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                load_if_exists=True,
                direction=_direction(search),
                # Every trial comes from the queue with its parameters: this sampler is never consulted.
                sampler=optuna.samplers.RandomSampler(seed=seed),
            )
        opened = cls(study, storage, group=group, space=space, search=search, seed=seed)
        if not any(_origin(trial) == "fixed_rule" for trial in opened._all_trials()):
            opened._enqueue(space.parameters(space.clip(first)), origin="fixed_rule")
        return opened

    def reconcile(self) -> int:
        """End the trials that a dead process left running and queue each one's parameters once; count them.

        Call before the first `ask`, and never while another process works on the study.
        """
        trials = self._all_trials()
        left_running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        already_queued = {trial.user_attrs.get("repeats") for trial in trials}
        for trial in left_running:
            parameters: dict[str, ParameterValue] | None = trial.user_attrs.get("parameters")
            # Queued first: dying between the two steps must lose no trial, and repeats none.
            if parameters is not None and trial.number not in already_queued:
                self._enqueue(parameters, origin=_origin(trial), repeats=trial.number)
            self._set_attribute(trial.number, "interrupted", True)
            self._study.tell(trial.number, state=TrialState.FAIL)
        return len(left_running)

    def ask(self) -> tuple[int, Hyperparameters] | None:
        """Start the next trial: its number and configuration; None when `num_samples` trials were started.

        Interrupted trials cost nothing. The queue comes before the sampler.
        """
        if not self.progress().has_budget:
            return None
        trials = self._all_trials()
        if not any(trial.state == TrialState.WAITING for trial in trials):
            proposal = propose(
                trials,
                space=self._space,
                direction=_direction(self._search),
                seed=self._seed,
                group=self.group,
            )
            self._enqueue(self._space.parameters(proposal), origin="sampler")
        trial = self._study.ask()
        return trial.number, self._space.suggest(trial)

    def record(self, number: int, trial: Trial) -> None:
        """End a running trial with its value, or as failed when it failed or its value is not finite.

        Epochs with a metric that is not finite are left out of the history. Raises SearchError when `number`
        is not running.
        """
        self._require_running(number)
        history = [epoch for epoch in trial.history if _is_finite(epoch)]
        details: dict[str, object] = {
            "history": [epoch.model_dump() for epoch in history],
            "seconds": trial.seconds,
            "started": trial.started,
            "error": _error(trial),
        }
        for key, detail in details.items():
            self._set_attribute(number, key, detail)
        for epoch in history:
            step_value: float = getattr(epoch, self._search.metric)
            self._storage.set_trial_intermediate_value(self._trial_id(number), epoch.epoch, step_value)
        if details["error"] is None:
            self._study.tell(number, trial.value)
        else:
            self._study.tell(number, state=TrialState.FAIL)

    def progress(self) -> GroupProgress:
        """Count what the budget counts: running trials, and finished ones that were not interrupted."""
        trials = self._all_trials()
        return GroupProgress(
            group=self.group,
            running=sum(trial.state == TrialState.RUNNING for trial in trials),
            finished=sum(_is_result(trial) for trial in trials),
            num_samples=self._search.num_samples,
        )

    def trials(self) -> list[Trial]:
        """List the finished trials in the order they were asked, without the interrupted ones."""
        return [self._to_record(trial) for trial in self._all_trials() if _is_result(trial)]

    def _to_record(self, trial: FrozenTrial) -> Trial:
        attributes = trial.user_attrs
        return Trial.model_validate(
            {
                "trial_id": f"{self.group}-{trial.number}",
                "hyperparameters": self._space.complete(trial.params),
                "status": "complete" if trial.state == TrialState.COMPLETE else "failed",
                "value": trial.value,
                "history": attributes.get("history", []),
                "seconds": attributes.get("seconds", 0.0),
                "error": attributes.get("error"),
                "origin": _origin(trial),
                "started": attributes.get("started", 0.0),
            }
        )

    def _all_trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _enqueue(self, parameters: dict[str, ParameterValue], **attributes: object) -> None:
        with quiet_optuna():
            self._study.enqueue_trial(parameters, user_attrs={"parameters": parameters, **attributes})

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


def _origin(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("origin", "sampler"))


def _is_result(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and not trial.user_attrs.get("interrupted", False)


def _is_finite(epoch: EpochMetrics) -> bool:
    return all(map(math.isfinite, (epoch.train_loss, epoch.val_loss, epoch.val_accuracy)))


def _error(trial: Trial) -> str | None:
    if trial.status == "failed":
        return trial.error or "the trial failed without an error message"
    if trial.value is None or not math.isfinite(trial.value):
        return trial.error or f"the trial's value must be a finite number, got {trial.value}"
    return None


def _drop_torn_entry(journal: Path) -> None:
    # A process killed while appending leaves a line without an end, to which the next entry would be glued.
    if not journal.exists():
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    try:
        content = journal.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with journal.open("r+b") as stream:
                stream.truncate(len(whole))
    finally:
        lock.release()
