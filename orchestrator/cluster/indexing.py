"""Lists an image folder in parallel: tasks open sub-folders and hand back those that are left for others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from pyarrow import compute as pc

from orchestrator.cluster.failures import translated
from orchestrator.cluster.progress import Progress
from orchestrator.cluster.resources import observe_cluster, slots
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.config import ClusterConfig
from orchestrator.data.image_index import (
    IndexPart,
    check_index_uri,
    index_folders,
    index_schema,
    left_out_uri,
    write_index,
    write_left_out,
)
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import DataError

# Tenths of a second on a disk, seconds on a store: long against what a task costs, and soon shared out.
_FILES_PER_TASK = 10_000
_FOLDERS_PER_TASK = 100
# Listing waits for the disk or the store for much of its time.
_TASK_CPU = 0.5


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """Count the files of an index, and by reason those that are not in it but in the table `left_out_uri`."""

    num_images: int
    num_left_out: int
    reasons: dict[str, int]
    left_out_uri: str


def index_images(
    folder_uri: str, index_uri: str, template: PathTemplate, *, say: Callable[[str], None]
) -> IndexSummary:
    """List an image folder once and write its index. Raises DataError when it has no image that fits the template."""
    check_index_uri(index_uri)
    index_schema(template)
    parts = list(Progress("index", say=say, unit="files").follow(_opened(folder_uri, template), _count))
    images = pa.concat_tables([part.images for part in parts])
    left_out = pa.concat_tables([part.left_out for part in parts])
    counted = pc.value_counts(left_out.column("reason")).to_pylist()
    write_left_out(index_uri, left_out)
    if images.num_rows == 0:
        first = f": {left_out.column('path')[0]}, {counted[0]['values']}" if counted else ""
        raise DataError(
            f"the folder must hold an image that matches {template.text}",
            value=f"{left_out.num_rows:,} other files in {folder_uri}{first}",
            remedy="Check the folder and --path.",
        )
    write_index(index_uri, images)
    return IndexSummary(
        num_images=images.num_rows,
        num_left_out=left_out.num_rows,
        reasons={found["values"]: found["counts"] for found in counted},
        left_out_uri=left_out_uri(index_uri),
    )


def _count(part: IndexPart) -> tuple[int, int]:
    return part.images.num_rows + part.left_out.num_rows, part.left_out.num_rows


def _opened(folder_uri: str, template: PathTemplate) -> Iterator[IndexPart]:
    """Open the folder and all below it. What a task leaves unopened is shared out over those that are free."""
    open_some: Any = ray.remote(num_cpus=_TASK_CPU)(_open)
    at_once = max(1, slots({"CPU": _TASK_CPU}, observe_cluster(elastic=False)))
    waiting = deque([""])
    running: list[ray.ObjectRef[IndexPart]] = []
    wanted = {"CPU": _TASK_CPU}
    with (
        translated("listing the folder"),
        Watchdog("listing the folder", wanted=wanted, stall_timeout_s=ClusterConfig().stall_timeout_s) as watchdog,
    ):
        while waiting or running:
            while waiting and len(running) < at_once:
                share = -(-len(waiting) // (at_once - len(running)))
                folders = [waiting.popleft() for _ in range(share)]
                running.append(open_some.remote(folder_uri, folders, template))
            ready, running = ray.wait(running, num_returns=1)
            for reference in ready:
                part = ray.get(reference)
                watchdog.beat()
                waiting.extend(part.unopened)
                yield part


def _open(folder_uri: str, folders: list[str], template: PathTemplate) -> IndexPart:
    return index_folders(folder_uri, folders, template, most_files=_FILES_PER_TASK, most_folders=_FOLDERS_PER_TASK)
