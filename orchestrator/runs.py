"""The run directory: records written atomically and last, checked by fingerprint, and one owner at a time."""

from __future__ import annotations

import _thread
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from orchestrator import storage
from orchestrator.config import ExperimentConfig
from orchestrator.errors import RecordError, RunLockedError, StorageError
from orchestrator.records import Record

RecordType = TypeVar("RecordType", bound=Record)

HEARTBEAT_S = 15.0
LEASE_S = 90.0
SETTLE_S = 1.0

_MOST_LETTERS = 80


class RunDirectory:
    """Name, write and read the files of one run below `<storage_path>/<name>`, local or on an object store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @classmethod
    def of(cls, config: ExperimentConfig) -> RunDirectory:
        """Give the run directory of an experiment."""
        return cls(storage.join(storage.absolute(config.storage_path), config.name))

    def path(self, *parts: str) -> str:
        """Give the path or URI of a file of the run."""
        return storage.join(self.uri, *parts)

    def write(self, name: str, record: Record) -> None:
        """Write a record, whole or not at all."""
        storage.write_bytes(self.path(name), record.to_json().encode())

    def find_any(self, name: str, kind: type[RecordType]) -> RecordType | None:
        """Give a record whatever it was made from; None when it is missing or damaged."""
        if not storage.exists(self.path(name)):
            return None
        try:
            return kind.from_json(storage.read_bytes(self.path(name)), source=self.path(name))
        except RecordError:
            # A record of an older version or a torn copy: the stage makes it anew.
            return None

    def find(self, name: str, kind: type[RecordType], fingerprint: str) -> RecordType | None:
        """Give a record that was made from these inputs; None when it is missing, damaged, or of other inputs."""
        record = self.find_any(name, kind)
        return record if record is not None and record.fingerprint == fingerprint else None

    def require_any(self, name: str, kind: type[RecordType], *, stage: str) -> RecordType:
        """Give a record whatever it was made from. Raises RecordError naming the stage that makes it."""
        if not storage.exists(self.path(name)):
            raise self._missing(name, stage)
        return kind.from_json(storage.read_bytes(self.path(name)), source=self.path(name))

    def require(self, name: str, kind: type[RecordType], fingerprint: str, *, stage: str) -> RecordType:
        """Give a record of an earlier stage. Raises RecordError naming the stage to run first."""
        record = self.find(name, kind, fingerprint)
        if record is not None:
            return record
        raise self._missing(name, stage)

    def _missing(self, name: str, stage: str) -> RecordError:
        there = storage.exists(self.path(name))
        rule = f"{name} was made from other inputs" if there else f"{name} must exist before this stage"
        return RecordError(
            rule, value=self.path(name), remedy=f"Run `orchestrator {stage}` (or `orchestrator run`) first."
        )

    def prune(self, folder: str, *, keep: str) -> None:
        """Remove what earlier versions of a stage left in a folder: everything whose name does not hold `keep`."""
        for name in storage.list_names(self.path(folder)):
            if keep not in name:
                storage.delete(self.path(folder, name))

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the run directory while the block runs. Raises RunLockedError naming a live owner."""
        lease = _FileLease(storage.local_path(self.uri)) if storage.is_local(self.uri) else _RemoteLease(self.uri)
        lease.acquire()
        try:
            yield
        finally:
            lease.release()


def folder_name(name: str) -> str:
    """Name a folder after something: by its own name where any file system and URI takes that, else by one like it.

    A dot is not taken: a folder is never mistaken for a record, nor for where it is.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_MOST_LETTERS]
    return name if name and plain == name else f"{plain}-{storage.digest(name)[:8]}"


def _owner() -> dict[str, object]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def _refusal(where: str, owner: object) -> RunLockedError:
    return RunLockedError(
        "a run directory has one live run at a time",
        value=f"{where}, owned by {owner}",
        remedy="Wait for it, stop it, or give this run another name.",
    )


class _FileLease:
    """Hold a lock of the operating system: it ends with its process, however that ends."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = FileLock(directory / ".lock")

    def acquire(self) -> None:
        note = self._directory / ".owner.json"
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise _refusal(str(self._directory), note.read_text() if note.exists() else "an unknown process") from None
        storage.write_bytes(str(note), json.dumps(_owner()).encode())

    def release(self) -> None:
        (self._directory / ".owner.json").unlink(missing_ok=True)
        self._lock.release()


class _RemoteLease:
    """Hold a lease by an object that is renewed while the process lives: object stores have no locks.

    Of two processes that start at the same time, the one whose note was overwritten reads the other's back after a
    pause and gives way. A run whose lease was taken over while it could not renew it is interrupted.
    """

    def __init__(self, uri: str) -> None:
        self._uri = storage.join(uri, "owner.json")
        self._owner = {**_owner(), "token": uuid.uuid4().hex}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="run-lease", daemon=True)

    def acquire(self) -> None:
        if storage.exists(self._uri):
            note = storage.read_json(self._uri)
            if time.time() - float(note["heartbeat"]) < LEASE_S:
                raise _refusal(self._uri, note)
        self._write()
        time.sleep(SETTLE_S)
        if not self._is_ours():
            raise _refusal(self._uri, storage.read_json(self._uri))
        self._thread.start()

    def release(self) -> None:
        self._stopped.set()
        self._thread.join()
        if self._is_ours():
            storage.delete(self._uri)

    def _renew(self) -> None:
        while not self._stopped.wait(HEARTBEAT_S):
            try:
                if not self._is_ours():
                    _thread.interrupt_main()
                    return
                self._write()
            except StorageError:
                # The store may be back with the next heartbeat, long before the lease ends.
                continue

    def _is_ours(self) -> bool:
        return storage.exists(self._uri) and storage.read_json(self._uri).get("token") == self._owner["token"]

    def _write(self) -> None:
        storage.write_bytes(self._uri, json.dumps({**self._owner, "heartbeat": time.time()}).encode())
