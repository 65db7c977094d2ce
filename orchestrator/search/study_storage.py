"""Opens the place where studies are kept: a journal file, or a database by its address."""

from __future__ import annotations

import re
from pathlib import Path

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import StorageError

_PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")


def open_storage(journal_path: Path, url: str | None) -> BaseStorage:
    """Open the database at an Optuna storage URL without heartbeat, or the journal file when there is none.

    What a crash has torn off the end of the journal is dropped. Raises StorageError when the database cannot be
    opened.
    """
    return _open_journal(journal_path) if url is None else _open_database(url)


def _open_journal(journal_path: Path) -> JournalStorage:
    # Absolute, because the lock is a symbolic link to the journal.
    path = journal_path.expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_torn_entry(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _open_database(url: str) -> RDBStorage:
    try:
        return RDBStorage(url)
    except ImportError as error:
        raise StorageError(
            "search.storage must name a database whose driver is installed",
            value=_without_password(url),
            remedy="Install the driver, for example `pip install psycopg2-binary` for postgresql://.",
        ) from error
    except (SQLAlchemyError, OptunaError, ValueError, RuntimeError) as error:
        raise StorageError(
            "search.storage must be a database that Optuna can open",
            value=f"{_without_password(url)} ({type(error).__name__}: {_without_password(_first_line(error))})",
            remedy="Give an address such as sqlite:////absolute/studies.db or postgresql://user@host/database, "
            "check that it can be reached, or leave search.storage out for a journal in the run directory.",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _without_password(text: str) -> str:
    return _PASSWORD.sub("***", text)


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
