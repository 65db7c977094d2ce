"""Turns any input into Parquet shards: parallel tasks that read fragments and write shards, the manifest last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import ray

from orchestrator import storage
from orchestrator.cluster.failures import translate
from orchestrator.cluster.progress import Progress
from orchestrator.cluster.watchdog import Watchdog, gather, start_progress
from orchestrator.config import ClusterConfig, DataConfig
from orchestrator.data.shards import (
    Shard,
    ShardFile,
    ShardSet,
    further_columns,
    make_shards,
    plan_shards,
    plan_tasks,
    quarantine_table,
    write_shard,
)
from orchestrator.data.sources import Fragment, list_fragments, listing_digest
from orchestrator.data.text_columns import require_attributes
from orchestrator.errors import ConfigError, RecordError, StorageError

SHARDS_VERSION = 1
QUARANTINE = "_quarantine.parquet"
MANIFEST = "_manifest.json"

# Names that begin with an underscore are hidden from whoever reads the folder as data.
_CLAIM = "_input.json"
_PARTS = "_parts"
# Of the section data: what does not change the rows that are read.
_BESIDE_READING = {"verify", "max_bad_fraction", "max_cache_bytes"}
# Enough for any cluster that is there, and a reason for an autoscaler to add to it.
_TASKS_AT_ONCE = 256


def shard_input(
    config: DataConfig,
    output_uri: str,
    rows_per_shard: int,
    *,
    columns: Sequence[str] = (),
    say: Callable[[str], None],
) -> ShardSet:
    """Write every image of the input that can be read, with its texts, to shards of as many rows.

    The columns of `data.tasks` and further `columns` are kept under their own names.
    The same input gives the same bytes. Rows that cannot be read are in a table beside the shards, with the reason.
    A run that was cut short goes on after the shards that it has written; a finished one has nothing to do. Raises
    StorageError when the output holds anything else.
    """
    beside = _BESIDE_READING if config.is_multi_label else {*_BESIDE_READING, "label_separator"}
    reading = config.model_dump(mode="json", exclude=beside)
    wanted = [*config.tasks, *columns]
    further = [wanted] if wanted else []
    fingerprint = storage.digest("shards", SHARDS_VERSION, reading, listing_digest(config), rows_per_shard, *further)
    finished = _find_finished(output_uri, fingerprint)
    if finished is not None:
        say(f"shard: up to date, {output_uri} was made from this input")
        return finished
    fragments = list_fragments(config)
    kept = further_columns(config, columns, fragments[0].format)
    require_attributes(config, kept, key="--column, data.tasks and diversity.columns")
    _claim(config, output_uri, fingerprint)
    found: dict[str, ShardFile] = {}
    num_rows = sum(fragment.num_rows for fragment in fragments)
    progress = Progress("shard", say=say, total=num_rows)
    for shards in progress.follow(_written(fragments, config, kept, output_uri, rows_per_shard), _count):
        found.update((shard.name, shard) for shard in shards)
    shards = [found[name] for name in sorted(found)]
    storage.write_table(storage.join(output_uri, QUARANTINE), quarantine_table(shards))
    made = ShardSet(
        fingerprint=fingerprint,
        shards=shards,
        rows_per_shard=rows_per_shard,
        num_images=sum(shard.num_rows for shard in shards),
        num_quarantined=sum(len(shard.quarantined) for shard in shards),
    )
    storage.write_bytes(storage.join(output_uri, MANIFEST), made.to_json().encode())
    storage.delete(storage.join(output_uri, _PARTS))
    return made


def _find_finished(output_uri: str, fingerprint: str) -> ShardSet | None:
    """Give the manifest of a finished run over the same input whose shards are all there."""
    if not storage.exists(storage.join(output_uri, MANIFEST)):
        return None
    try:
        made = ShardSet.from_json(storage.read_bytes(storage.join(output_uri, MANIFEST)), source=MANIFEST)
    except RecordError:
        return None
    is_whole = {shard.name for shard in made.shards} <= set(storage.list_names(output_uri))
    return made if made.fingerprint == fingerprint and is_whole else None


def _plain(uri: str) -> str:
    """Write a place in the one way that others of it can be compared with."""
    return str(storage.local_path(uri).resolve()) if storage.is_local(uri) else uri.rstrip("/")


def _claim(config: DataConfig, output_uri: str, fingerprint: str) -> None:
    """Mark the output as that of this input. Raises StorageError when it holds anything else."""
    if f"{_plain(output_uri)}/".startswith(f"{_plain(config.uri)}/"):
        raise ConfigError(
            "the shards must lie outside of their input", value=output_uri, remedy="Name a folder beside it."
        )
    names = storage.list_names(output_uri)
    claim = storage.join(output_uri, _CLAIM)
    if names and not (_CLAIM in names and storage.read_json(claim) == {"fingerprint": fingerprint}):
        raise StorageError(
            "the output must be empty, or hold shards of the same input and options",
            value=f"{output_uri} with {names[0]}",
            remedy="Remove it or name another.",
        )
    storage.write_bytes(claim, json.dumps({"fingerprint": fingerprint}).encode())


def _count(shards: Sequence[ShardFile]) -> tuple[int, int]:
    bad = sum(len(shard.quarantined) for shard in shards)
    return sum(shard.num_rows for shard in shards) + bad, bad


def _written(
    fragments: Sequence[Fragment], config: DataConfig, columns: Sequence[str], output_uri: str, rows_per_shard: int
) -> Iterator[list[ShardFile]]:
    """Give what every task has written, or has found written by a run before."""
    row_counts = [fragment.num_rows for fragment in fragments]
    shards = plan_shards(row_counts, rows_per_shard)
    write: Any = ray.remote(num_cpus=1)(_write)
    steps = start_progress()
    calls = []
    for task in plan_tasks(shards, row_counts):
        # Of the listing each task gets its own part alone: the whole may name millions of files.
        used = {piece.fragment: fragments[piece.fragment] for shard in task for piece in shard.pieces}
        calls.append(partial(write.remote, task, used, config, columns, output_uri, len(shards), steps))
    limit_s = ClusterConfig().stall_timeout_s
    with Watchdog("writing shards", wanted={"CPU": 1}, stall_timeout_s=limit_s) as watchdog:
        for _, result in gather(calls, progress=steps, watchdog=watchdog, limit=_TASKS_AT_ONCE):
            if isinstance(result, Exception):
                raise translate(result, "writing shards")
            yield result


def _write(
    task: Sequence[Shard],
    fragments: dict[int, Fragment],
    config: DataConfig,
    columns: Sequence[str],
    output_uri: str,
    num_shards: int,
    steps: Any,
) -> list[ShardFile]:
    """Write the shards of a task that are not there yet, each with a note of what it holds."""
    width = max(5, len(str(num_shards)))
    names = {shard.number: f"shard-{shard.number:0{width}d}-of-{num_shards:0{width}d}" for shard in task}
    found = {number: _find_written(output_uri, name) for number, name in names.items()}
    missing = [shard for shard in task if found[shard.number] is None]
    for shard, rows in zip(missing, make_shards(missing, fragments, config, columns), strict=True):
        name = names[shard.number]
        written = write_shard(output_uri, f"{name}.parquet", rows, config, columns)
        # The note comes after its shard: where it is, the shard is whole.
        storage.write_bytes(storage.join(output_uri, _PARTS, f"{name}.json"), written.model_dump_json().encode())
        found[shard.number] = written
        steps.step.remote()
    return [written for written in found.values() if written is not None]


def _find_written(output_uri: str, name: str) -> ShardFile | None:
    note = storage.join(output_uri, _PARTS, f"{name}.json")
    if not (storage.exists(note) and storage.exists(storage.join(output_uri, f"{name}.parquet"))):
        return None
    return ShardFile.model_validate_json(storage.read_bytes(note))
