"""Keeps files that grow by lines on this machine's disk, and copies of them in the run directory."""

from __future__ import annotations

import time

from orchestrator import storage

_KEEP_EVERY_S = 10.0


class Journal:
    """Name a file that is appended to: in a local run directory itself, else a working copy of an object.

    An object store has no appending, so the whole copy is written again, at most every ten seconds and at the end.
    """

    def __init__(self, uri: str) -> None:
        """Fetch the copy that an earlier run has left; `uri` is the journal's place in the run directory."""
        self._uri = uri
        self._is_local = storage.is_local(uri)
        self._kept_at = time.monotonic()
        if self._is_local:
            self.path = storage.local_path(uri)
            return
        self.path = storage.scratch_directory("journals") / f"{storage.digest(uri)}.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The run directory is the truth: a working copy of an earlier run of this machine may be behind it.
        self.path.unlink(missing_ok=True)
        if storage.exists(uri):
            self.path.write_bytes(storage.read_bytes(uri))

    def keep(self, *, at_once: bool = False) -> None:
        """Copy the journal to the run directory when the last copy is old enough."""
        due = at_once or time.monotonic() - self._kept_at >= _KEEP_EVERY_S
        if self._is_local or not due or not self.path.exists():
            return
        storage.write_bytes(self._uri, self.path.read_bytes())
        self._kept_at = time.monotonic()
