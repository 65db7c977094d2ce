"""Plans and writes Parquet shards of an even number of rows, whatever the pieces that the input comes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from orchestrator import storage
from orchestrator.config import DataConfig, DataFormat, SplitFractions
from orchestrator.data.columns import named_columns
from orchestrator.data.identity import image_digest
from orchestrator.data.sources import Fragment, read_fragment
from orchestrator.data.templates import placeholders
from orchestrator.data.text_columns import attribute_name, read_attributes
from orchestrator.errors import ConfigError, DataError
from orchestrator.records import Record, Value

ROWS_PER_GROUP = 256
"""Of a shard: what one task reads at a time."""

SHARD_SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("label", pa.string()),
        ("subset", pa.string()),
        ("id", pa.string()),
        ("split", pa.string()),
        ("together", pa.string()),
    ]
)
"""A row for each image, its bytes as they were; texts are null where the input has none. Further columns follow."""

QUARANTINE_SCHEMA = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("reason", pa.string())]
)

_NO_IMAGE = "the image is missing"
_OPTIONAL = ("label", "subset", "split", "together")
# Of the section data: what is as true of the shards as of the input.
_BEYOND_READING = {"tasks", "verify", "deduplicate", "max_bad_fraction", "max_cache_bytes"}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Name rows of a fragment, by its place in the listing: from `start` up to and without `stop`."""

    fragment: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Name the rows of the input that one shard is made from, in order."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def num_rows(self) -> int:
        """Count the rows."""
        return sum(piece.stop - piece.start for piece in self.pieces)


class QuarantinedRow(Value):
    """Say which row of the input could not be read, and why."""

    file: str
    row: int
    id: str | None
    reason: str


class ShardFile(Value):
    """Describe a shard that was written. `fields` are those of which some row has a text."""

    name: str
    num_rows: int
    num_bytes: int
    digest: str
    fields: list[str]
    quarantined: list[QuarantinedRow]


class ShardSet(Record):
    """Describe all shards of an input: the manifest, written last."""

    shards: list[ShardFile]
    rows_per_shard: int
    num_images: int
    num_quarantined: int

    @property
    def fields(self) -> list[str]:
        """Name the fields of which some row has a text."""
        return [field for field in _OPTIONAL if any(field in shard.fields for shard in self.shards)]


def plan_shards(row_counts: Sequence[int], rows_per_shard: int) -> list[Shard]:
    """Cut fragments of these lengths, one after the other, into shards of `rows_per_shard` rows; the last has the rest.

    Every row is in exactly one shard, in the order of the input.
    """
    shards: list[Shard] = []
    pieces: list[Piece] = []
    free = rows_per_shard
    for fragment, count in enumerate(row_counts):
        start = 0
        while start < count:
            stop = min(count, start + free)
            pieces.append(Piece(fragment=fragment, start=start, stop=stop))
            free -= stop - start
            start = stop
            if free == 0:
                shards.append(Shard(number=len(shards), pieces=tuple(pieces)))
                pieces, free = [], rows_per_shard
    if pieces:
        shards.append(Shard(number=len(shards), pieces=tuple(pieces)))
    return shards


def plan_tasks(shards: Sequence[Shard], row_counts: Sequence[int]) -> list[tuple[Shard, ...]]:
    """Put consecutive shards into tasks so that no fragment is read by more than two of them.

    A task ends with a shard that cuts no fragment, or one that is no longer than all that the task has read: a long
    fragment, which can only be read whole, is cut up by one task instead of being read again for each shard.
    """
    tasks: list[tuple[Shard, ...]] = []
    task: list[Shard] = []
    num_rows = 0
    for shard in shards:
        task.append(shard)
        num_rows += shard.num_rows
        last = shard.pieces[-1]
        if last.stop == row_counts[last.fragment] or row_counts[last.fragment] <= num_rows:
            tasks.append(tuple(task))
            task, num_rows = [], 0
    return tasks


def further_columns(config: DataConfig, columns: Iterable[str], format: DataFormat) -> tuple[str, ...]:
    """Give the columns that a shard needs beside its own: those of `data.tasks`, then `columns`, each once.

    One that is a field of the samples anyway, and is named like it, is there already. Raises ConfigError where a column
    would stand under the name of another of a shard's.
    """
    in_path = format == "images" or config.path is not None
    named = {**(placeholders(config) if in_path else {}), **named_columns(config)}
    there = {column for field, column in named.items() if column == field}
    wanted = [column for column in dict.fromkeys((*config.tasks, *columns)) if column not in there]
    taken = sorted(set(wanted) & set(SHARD_SCHEMA.names))
    if taken:
        raise ConfigError(
            f"a further column must not be named like one of every shard's: {', '.join(SHARD_SCHEMA.names)}",
            value=taken[0],
            remedy="Rename it in the input, or name it in the section data for what it is.",
        )
    return tuple(wanted)


def make_shards(
    task: Sequence[Shard], fragments: Mapping[int, Fragment], config: DataConfig, columns: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Read the rows of each shard of a task, each fragment once: tables as `read_fragment` gives them.

    Each of the further `columns` is in them as `text_columns.attribute_name` names it.
    """
    needed: dict[int, tuple[int, int]] = {}
    for piece in _pieces(task):
        start, _ = needed.get(piece.fragment, (piece.start, 0))
        needed[piece.fragment] = (start, piece.stop)
    held, table = -1, pa.table({})
    for shard in task:
        parts = []
        for piece in shard.pieces:
            start, stop = needed[piece.fragment]
            if piece.fragment != held:
                held, table = piece.fragment, _read(fragments[piece.fragment], config, start, stop, columns)
            parts.append(table.slice(piece.start - start, piece.stop - piece.start))
        yield pa.concat_tables(parts)


def _pieces(task: Iterable[Shard]) -> Iterator[Piece]:
    for shard in task:
        yield from shard.pieces


def _read(fragment: Fragment, config: DataConfig, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    whole = (start, stop) == (0, fragment.num_rows)
    table = read_fragment(fragment, config, with_image=True, rows=None if whole else range(start, stop))
    if table.num_rows != stop - start:
        raise DataError(
            f"{fragment.files[0]} must keep the {fragment.num_rows} rows that it was listed with",
            value=table.num_rows,
            remedy="Let nothing write to the input meanwhile.",
        )
    for index, texts in enumerate(read_attributes(fragment, config, columns)):
        table = table.append_column(attribute_name(index), texts.slice(start, stop - start))
    return table


def write_shard(
    folder_uri: str, name: str, rows: pa.Table, config: DataConfig, columns: Sequence[str] = ()
) -> ShardFile:
    """Write the rows of a shard that can be read, whole or not at all, and tell of those that cannot.

    Without a column of identities a row is what its bytes are, as in the catalogue. The further `columns` keep their
    names.
    """
    lengths = pc.fill_null(pc.binary_length(rows.column("image")), 0)
    is_bad = pc.or_(pc.is_valid(rows.column("error")), pc.equal(lengths, 0))
    good = rows.filter(pc.invert(is_bad))
    if config.id is None:
        ids = pa.chunked_array([_identities(good)], pa.string())
        good = good.set_column(good.schema.get_field_index("id"), "id", ids)
    content = _encode(good, columns)
    storage.write_bytes(storage.join(folder_uri, name), content)
    return ShardFile(
        name=name,
        num_rows=good.num_rows,
        num_bytes=len(content),
        digest=storage.digest_bytes([content]),
        fields=[field for field in _OPTIONAL if good.column(field).null_count < good.num_rows],
        quarantined=[
            QuarantinedRow(file=row["file"], row=row["row"], id=row["id"], reason=row["error"] or _NO_IMAGE)
            for row in rows.select(["file", "row", "id", "error"]).filter(is_bad).to_pylist()
        ],
    )


def _identities(rows: pa.Table) -> list[str]:
    ids = rows.column("id").to_pylist()
    images = (scalar.as_buffer() for scalar in rows.column("image"))
    return [identity or image_digest(image) for identity, image in zip(ids, images, strict=True)]


def _encode(rows: pa.Table, columns: Sequence[str]) -> bytes:
    further = [attribute_name(index) for index in range(len(columns))]
    rows = rows.select([*SHARD_SCHEMA.names, *further]).rename_columns([*SHARD_SCHEMA.names, *columns])
    schema = pa.schema([*SHARD_SCHEMA, *((column, pa.string()) for column in columns)])
    texts = [name for name in schema.names if name != "image"]
    sink = pa.BufferOutputStream()
    # Encoded images neither shrink nor repeat; statistics of them serve nobody.
    with pq.ParquetWriter(
        sink,
        schema,
        compression={"image": "none", **dict.fromkeys(texts, "zstd")},
        use_dictionary=["label", "subset", "split", "together", *columns],
        write_statistics=texts,
    ) as writer:
        for start in range(0, rows.num_rows, ROWS_PER_GROUP):
            places = np.arange(start, min(start + ROWS_PER_GROUP, rows.num_rows))
            # Copied, not sliced: a slice keeps its offset into what may be more than `binary` can hold.
            writer.write_table(rows.take(pa.array(places)).cast(schema).combine_chunks())
    return bytes(sink.getvalue())


def quarantine_table(shards: Iterable[ShardFile]) -> pa.Table:
    """List the rows that could not be read: QUARANTINE_SCHEMA, in the order of the input."""
    rows = [row.model_dump() for shard in shards for row in shard.quarantined]
    return pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)


def describe_shards(uri: str, fields: Iterable[str], config: DataConfig) -> dict[str, object]:
    """Give the section `data` of an experiment file that reads shards in which rows have these fields.

    What the section says of the input beyond how it is read, such as `deduplicate`, it says of the shards.
    """
    named = set(fields)
    section: dict[str, object] = {"uri": uri, "image": "image", "id": "id"}
    section |= {field: field for field in ("label", "subset") if field in named}
    split: dict[str, object] = {}
    split |= {key: field for key, field in (("column", "split"), ("keep_together", "together")) if field in named}
    if "column" not in split and config.split.fractions != SplitFractions():
        split["fractions"] = config.split.fractions.model_dump(mode="json")
    kept = config.model_dump(mode="json", include=_BEYOND_READING, exclude_defaults=True)
    return section | ({"split": split} if split else {}) | kept
