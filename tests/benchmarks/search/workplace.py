"""Holds what all measurements of one run share, each made when it is first wanted and off every clock."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from command import note
from ours import experiment, our_ray, prepare
from peer_training import fastest_num_workers
from peers_plain_loop import search_with_plain_loop
from photo_task import export_task, write_domain
from protocol import PhotoTask, Protocol

DOMAIN = "photo"
REFERENCE_SEED = 1000


@dataclass(eq=False)
class Workplace:
    """Hold the paths, the protocol, and what was prepared from them."""

    data: Path
    weights: Path
    scratch: Path
    protocol: Protocol
    known_reference: float | None = None
    _prepared: dict[str, Path] = field(default_factory=dict, init=False)

    @property
    def threads(self) -> int:
        """Count the cores that this process may use."""
        return len(os.sched_getaffinity(0))

    def fresh(self, name: str) -> Path:
        """Give a path that nothing has used yet."""
        return self.scratch / f"{name}-{uuid4().hex[:8]}"

    def domain(self, name: str) -> Path:
        """Give the directory of a domain's Parquet file."""
        directory = self.scratch / "data" / name
        if not directory.exists():
            write_domain(self.data, name, directory, max_images=self.protocol.max_images)
        return directory

    def prepared(self, name: str) -> Path:
        """Give a run directory of a domain in which the stages up to `group` have run."""
        if name not in self._prepared:
            config = experiment(self.domain(name), self.weights, self.fresh("prepared"))
            with our_ray(self.threads):
                self._prepared[name] = prepare(config)
        return self._prepared[name]

    @cached_property
    def task(self) -> PhotoTask:
        """Give the photo domain as the peers read it."""
        return export_task(self.prepared(DOMAIN), self.weights, self.scratch / "task", threads=self.threads)

    @cached_property
    def num_workers(self) -> int:
        """Give the number of DataLoader workers that is fastest here."""
        found = fastest_num_workers(self.task)
        note(f"peers load with {found} DataLoader worker(s)")
        return found

    @cached_property
    def reference(self) -> float:
        """Give the best validation accuracy of a search that takes no part: the plain loop, whose seed no one uses."""
        if self.known_reference is not None:
            return self.known_reference
        best, _ = search_with_plain_loop(
            self.task, self.protocol, seed=REFERENCE_SEED, num_workers=self.num_workers, target=None
        )
        note(f"the reference search found {best:.4f}")
        return best
