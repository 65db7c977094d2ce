"""The append-only ledger of a search: what every assignment cost, how long the search has run, and every race run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import ValidationError

from orchestrator.records import RaceRun, Trial, Value
from orchestrator.stages.journals import Journal

_KEEP_TIME_EVERY_S = 30.0


class LedgerEntry(Value):
    """Record one finished assignment, or with the kind "clock" only that the search still ran.

    `study` is the fingerprint of the group's study, so that entries of an older search count no more. `elapsed_s` is
    the search time when it ended: over all resumes, without the time in between.
    """

    study: str
    group: str
    kind: Literal["trial", "heads", "race", "clock"]
    trials: tuple[str, ...] = ()
    seconds: float = 0.0
    elapsed_s: float
    race: RaceRun | None = None


class SearchLedger:
    """Keep the entries of the current studies, a line each, and the clock that they carry on."""

    def __init__(self, journal: Journal, studies: Mapping[str, str]) -> None:
        """Read what earlier processes have left; `studies` maps each group to the fingerprint of its study.

        A line that was cut off by a crash is left out.
        """
        self._journal = journal
        self._studies = dict(studies)
        _end_last_line(journal)
        self._entries = [entry for entry in _read(journal) if self._studies.get(entry.group) == entry.study]
        self._started = time.monotonic()
        self._before_s = max((entry.elapsed_s for entry in self._entries), default=0.0)
        self._kept_s = self._before_s

    def elapsed_s(self) -> float:
        """Give the seconds of search so far."""
        return self._before_s + time.monotonic() - self._started

    def keep_time(self) -> float:
        """Give the seconds of search so far, and write them down now and then: a long trial may never end."""
        elapsed_s = self.elapsed_s()
        if elapsed_s - self._kept_s >= _KEEP_TIME_EVERY_S:
            group, study = next(iter(self._studies.items()))
            self._write(LedgerEntry(study=study, group=group, kind="clock", elapsed_s=elapsed_s))
        return elapsed_s

    @property
    def worked_s(self) -> float:
        """Sum the seconds of the finished assignments, however many of them ran at the same time."""
        return sum(entry.seconds for entry in self._entries)

    @property
    def race_runs(self) -> list[RaceRun]:
        """List the finished runs of races."""
        return [entry.race for entry in self._entries if entry.race is not None]

    def append(
        self,
        group: str,
        kind: Literal["trial", "heads", "race"],
        outcomes: Sequence[Trial],
        race: RaceRun | None,
    ) -> None:
        """Write what came of an assignment; it is on disk when this returns."""
        entry = LedgerEntry(
            study=self._studies[group],
            group=group,
            kind=kind,
            trials=tuple(trial.trial_id for trial in outcomes),
            seconds=sum(trial.seconds for trial in outcomes),
            elapsed_s=self.elapsed_s(),
            race=race,
        )
        self._write(entry)

    def _write(self, entry: LedgerEntry) -> None:
        self._entries.append(entry)
        self._kept_s = entry.elapsed_s
        self._journal.path.parent.mkdir(parents=True, exist_ok=True)
        with self._journal.path.open("a", encoding="utf-8") as stream:
            stream.write(entry.model_dump_json() + "\n")


def _end_last_line(journal: Journal) -> None:
    # A process killed while appending leaves a line without an end, to which the next entry would be glued.
    if journal.path.exists() and journal.path.read_bytes()[-1:] not in {b"", b"\n"}:
        with journal.path.open("ab") as stream:
            stream.write(b"\n")


def _read(journal: Journal) -> list[LedgerEntry]:
    if not journal.path.exists():
        return []
    entries = []
    for line in journal.path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(LedgerEntry.model_validate_json(line))
        except ValidationError:
            continue
    return entries
