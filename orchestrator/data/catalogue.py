"""Decides what every sample is: its identity, its split, whether it is usable, and where its pixels are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator import storage
from orchestrator.config import DataConfig, SplitName
from orchestrator.data.decoding import decode_image, resize_image
from orchestrator.data.identity import (
    assign_split,
    image_digest,
    parse_split,
    pixel_digest,
    split_key,
    stable_fraction,
)
from orchestrator.data.multi_label import NO_LABEL, canonical_labels, label_indicators, labels_of
from orchestrator.data.perceptual import perceptual_hash
from orchestrator.errors import DataError
from orchestrator.records import SubsetCount

CATALOGUE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("subset", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("split_given", pa.bool_()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("ok", pa.bool_()),
        ("reason", pa.string()),
        ("copy_of", pa.string()),
        ("content", pa.string()),
        ("pixels", pa.string()),
        ("perceptual", pa.string()),
        ("together", pa.string()),
        ("fragment", pa.int32()),
        ("pixel_row", pa.int32()),
        ("tasks", pa.list_(pa.string())),
    ]
)
"""A row for each sample. Texts are empty, never null, where there is nothing to say; `split_given` tells that the data
names the split; `copy_of` is the id of the first sample that shows the same picture; `content` is the digest of the
image's bytes, `pixels` that of the decoded ones, `perceptual` the hash of their looks where near copies are looked for
and the picture is not plain; `together` what a sample must stay on one side of every split with; `pixel_row` is the row
in the fragment's file of cached pixels, -1 when they are not cached; `tasks` has the label of every further task, null
where there is none. Where images have any number of labels, `label` has all of them, sorted and parted by
`multi_label.UNIT_SEPARATOR`."""

# All that a sample is comes before where it lies: the first of several copies is the same in other files.
_CANONICAL_ORDER = ("id", "subset", "label", "content", "together", "split", "file", "row")


def examine(
    table: pa.Table,
    config: DataConfig,
    fragment_key: int,
    image_size: int,
    resize: Literal["crop", "squash"],
    seed: int,
    cache_fraction: float,
    tasks: Sequence[Sequence[str | None]] = (),
    *,
    needs_label: bool = True,
    with_looks: bool = False,
) -> tuple[pa.Table, NDArray[np.uint8]]:
    """Examine the rows of one fragment: their catalogue, and the pixels to cache, uint8 [n, size, size, 3].

    `table` comes from `read_fragment`. A row that cannot be used keeps its file and row, is not ok, and says why
    in a few words. With `verify: none` no image is looked at and no pixels are cached. Of the usable samples, a
    share of `cache_fraction` is cached, chosen by the hash of the identity. `tasks` has the labels of each further task
    by row, as `read_tasks` gives them. Where a sample needs no label, an empty one says that it has none.
    Looks are hashed where `deduplicate` is near, and `with_looks` in any case.
    """
    pixels = np.empty((table.num_rows, image_size, image_size, 3), dtype=np.uint8)
    found: list[dict[str, object]] = []
    num_cached = 0
    for number, row in enumerate(_iterate(table)):
        sample = _describe(row, config, fragment_key)
        sample["tasks"] = [labels[number] for labels in tasks]
        found.append(sample)
        try:
            _require_fields(sample, row, needs_label=needs_label)
            rgb = _decode(row["image"]) if config.verify == "decode" else None
            if rgb is not None:
                sample.update(_hashes(rgb, with_looks=with_looks or config.deduplicate == "near"))
            identity = _require_identity(sample)
            sample["split"] = _split(identity, row, config, seed)
        except DataError as error:
            sample.update(ok=False, reason=str(error))
            continue
        if rgb is not None and stable_fraction(identity, seed) < cache_fraction:
            pixels[num_cached] = resize_image(rgb, image_size, resize)
            sample["pixel_row"] = num_cached
            num_cached += 1
    return pa.Table.from_pylist(found, schema=CATALOGUE_SCHEMA), pixels[:num_cached]


def _iterate(table: pa.Table) -> Iterator[dict[str, Any]]:
    # Small batches: turning the whole table into Python objects would copy every image at once.
    for batch in table.to_batches(max_chunksize=64):
        yield from batch.to_pylist()


def _describe(row: dict[str, Any], config: DataConfig, fragment_key: int) -> dict[str, object]:
    """Give the catalogue row of a sample as far as the sample says it itself."""
    image = row["image"] if config.verify == "decode" else None
    content = image_digest(image) if image else ""
    return {
        # Image files bring their path as identity; rows without a column of identities are what their bytes are.
        "id": row["id"] or ("" if config.id is not None else content),
        "subset": (row["subset"] or "").strip(),
        "label": _label(row["label"], config),
        "split": "",
        "split_given": bool(row["split"]),
        "file": row["file"],
        "row": row["row"],
        "ok": True,
        "reason": "",
        "copy_of": "",
        "content": content,
        "pixels": "",
        "perceptual": "",
        "together": row["together"] or "",
        "fragment": fragment_key,
        "pixel_row": -1,
    }


def _label(text: str | None, config: DataConfig) -> str:
    if config.label_separator is not None:
        return canonical_labels(text, config.label_separator)
    return (text or "").strip()


def _require_fields(sample: dict[str, object], row: dict[str, Any], *, needs_label: bool) -> None:
    if row["error"]:
        raise DataError(row["error"])
    for name in ("label", "subset") if needs_label else ("subset",):
        if not sample[name]:
            raise DataError(f"the {name} is missing")


def _require_identity(sample: dict[str, object]) -> str:
    if not sample["id"]:
        raise DataError("the id is missing")
    return str(sample["id"])


def _decode(image: bytes | None) -> NDArray[np.uint8]:
    if not image:
        raise DataError("the image is missing")
    return decode_image(image)


def _hashes(rgb: NDArray[np.uint8], *, with_looks: bool) -> dict[str, str]:
    # The looks take as long as the decoding: only those who ask for them pay.
    return {"pixels": pixel_digest(rgb), "perceptual": perceptual_hash(rgb) if with_looks else ""}


def _split(identity: str, row: dict[str, Any], config: DataConfig, seed: int) -> SplitName:
    if row["split"]:
        return parse_split(row["split"])
    if config.split.column is not None:
        raise DataError("the split is missing")
    return assign_split(split_key(identity, row["together"]), config.split.fractions, seed)


def assemble(parts: Sequence[pa.Table]) -> pa.Table:
    """Put the catalogues of all fragments together, in the same order however the samples were sharded."""
    tables = [part.select(CATALOGUE_SCHEMA.names).cast(CATALOGUE_SCHEMA) for part in parts]
    table = pa.concat_tables([CATALOGUE_SCHEMA.empty_table(), *tables])
    return table.sort_by([(column, "ascending") for column in _CANONICAL_ORDER]).combine_chunks()


def data_fingerprint(table: pa.Table) -> str:
    """Digest the identity, subset, labels, split, content and `together` of every usable row of an assembled table.

    Where the rows lie does not matter: the same samples in other files have the same fingerprint.
    """
    usable = table.filter(table.column("ok"))
    names = ("id", "subset", "label", "split", "content", "together")
    columns = itertools.chain((usable.column(name) for name in names), _task_columns(usable))
    return storage.digest_bytes(chunk for column in columns for chunk in _column_bytes(column))


def _task_columns(table: pa.Table) -> Iterator[pa.Array]:
    """Give the labels of each further task, empty where there is none."""
    lists = table.column("tasks").combine_chunks()
    for task in range(pc.max(pc.list_value_length(lists)).as_py() or 0):
        yield pc.fill_null(pc.list_element(lists, task), "")


def _column_bytes(column: pa.ChunkedArray | pa.Array) -> Iterator[bytes]:
    # The lengths keep neighbouring texts apart: without them "a", "bc" and "ab", "c" would be the same.
    yield np.asarray(pc.binary_length(column), dtype=np.int64).tobytes()
    yield "".join(column.to_pylist()).encode("utf-8", "surrogatepass")


class CatalogueSummary(TypedDict):
    """Name the counts of `records.Catalogue`."""

    num_images: int
    num_copies_left_out: int
    num_quarantined: int
    num_cached: int
    quarantine_reasons: dict[str, int]
    labels: list[str]
    subsets: list[SubsetCount]


def summarise(table: pa.Table, *, multi_label: bool = False) -> CatalogueSummary:
    """Count the rows of an assembled table; rows that name no subset are in the totals alone.

    With `multi_label` the labels are those that its label sets are of.
    """
    usable = table.filter(table.column("ok"))
    quarantined = bad_rows(table)
    left_out = table.filter(_is_left_out(table))
    return CatalogueSummary(
        num_images=usable.num_rows,
        num_copies_left_out=left_out.num_rows,
        num_quarantined=quarantined.num_rows,
        num_cached=int(np.count_nonzero(np.asarray(usable.column("pixel_row")) >= 0)),
        quarantine_reasons={reason: count for (reason,), count in _count(quarantined, "reason").items()},
        labels=[label for label in SampleTable(usable, multi_label=multi_label).classes() if label],
        subsets=_count_subsets(usable, quarantined, left_out),
    )


def bad_rows(table: pa.Table) -> pa.Table:
    """Give the rows of an assembled table that cannot be used; copies that were left out could be."""
    return table.filter(pc.and_not(pc.invert(table.column("ok")), _is_left_out(table)))


def _is_left_out(table: pa.Table) -> pa.ChunkedArray:
    return pc.and_not(pc.not_equal(table.column("copy_of"), ""), table.column("ok"))


def _count_subsets(usable: pa.Table, quarantined: pa.Table, left_out: pa.Table) -> list[SubsetCount]:
    good = _count(usable, "subset", "split")
    bad = _count(quarantined, "subset")
    copies = _count(left_out, "subset")
    names = sorted({subset for subset, _ in good} | {subset for (subset,) in (*bad, *copies) if subset})
    return [
        SubsetCount(
            subset=name,
            train=good.get((name, "train"), 0),
            val=good.get((name, "val"), 0),
            test=good.get((name, "test"), 0),
            quarantined=bad.get((name,), 0),
            copies_left_out=copies.get((name,), 0),
        )
        for name in names
    ]


def _count(table: pa.Table, *columns: str) -> dict[tuple[str, ...], int]:
    counted = table.group_by(list(columns), use_threads=False).aggregate([([], "count_all")])
    keys = zip(*(counted.column(name).to_pylist() for name in columns), strict=True)
    return dict(sorted(zip(keys, counted.column("count_all").to_pylist(), strict=True)))


class SampleTable:
    """Ask an assembled table for samples, by their positions in it."""

    def __init__(self, table: pa.Table, *, multi_label: bool = False) -> None:
        """Wrap a table of CATALOGUE_SCHEMA, as `assemble` gives it; `multi_label` says that its labels are sets."""
        self.table = table
        self.multi_label = multi_label

    def where(self, subsets: Sequence[str] | None = None, split: str | None = None) -> NDArray[np.int64]:
        """Give the positions of the usable samples of these subsets and this split, ascending; None takes all."""
        chosen = self.table.column("ok")
        if subsets is not None:
            names = pa.array(subsets, pa.string())
            chosen = pc.and_(chosen, pc.is_in(self.table.column("subset"), value_set=names))
        if split is not None:
            chosen = pc.and_(chosen, pc.equal(self.table.column("split"), split))
        return np.flatnonzero(np.asarray(chosen)).astype(np.int64)

    def cached(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Keep those of these samples whose pixels are cached, in their order."""
        kept: NDArray[np.int64] = positions[np.asarray(self.table.column("pixel_row").take(pa.array(positions))) >= 0]
        return kept

    def are_cached(self, positions: NDArray[np.int64]) -> bool:
        """Tell whether the pixels of all of these samples are cached."""
        return len(self.cached(positions)) == len(positions)

    def of_classes(self, positions: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
        """Keep those of these samples whose label is one of the classes, in their order."""
        labels = self.table.column("label").take(pa.array(positions))
        kept: NDArray[np.int64] = positions[np.asarray(pc.is_in(labels, value_set=pa.array(classes, pa.string())))]
        return kept

    def classes(self, positions: NDArray[np.int64] | None = None) -> tuple[str, ...]:
        """Give the labels of these samples, of all rows without positions: each once, sorted."""
        texts = pc.unique(self._labels(positions)).to_pylist()
        return tuple(sorted({label for text in texts for label in labels_of(text)} if self.multi_label else texts))

    def label_counts(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the samples of each label that occurs among these [K]; one without any counts as one of `NO_LABEL`."""
        counts = self.occurrences(positions).column("label").combine_chunks().value_counts()
        return np.asarray(counts.field("counts"), dtype=np.int64)

    def occurrences(self, positions: NDArray[np.int64]) -> pa.Table:
        """Give subset and label of these samples: a row for each label of a sample, `NO_LABEL` where it has none."""
        table = self.table.select(["subset", "label"]).take(pa.array(positions))
        if not self.multi_label:
            return table
        labels = pa.array(
            [labels_of(text) or [NO_LABEL] for text in table.column("label").to_pylist()], pa.list_(pa.string())
        )
        subsets = table.column("subset").take(pc.list_parent_indices(labels))
        return pa.table({"subset": subsets, "label": pa.chunked_array([pc.list_flatten(labels)])})

    def targets(self, positions: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64] | NDArray[np.float32]:
        """Give what these samples are learnt by: the place of each one's label in `classes`, int64 [n].

        Of label sets float32 [n, K]: 1 for each label that a sample has, else 0. Raises DataError for a label that is
        not there.
        """
        if self.multi_label:
            return label_indicators(self._labels(positions).to_pylist(), classes)
        return self.class_indices(positions, classes)

    def _labels(self, positions: NDArray[np.int64] | None) -> pa.ChunkedArray:
        labels = self.table.column("label")
        return labels if positions is None else labels.take(pa.array(positions))

    def class_indices(self, positions: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
        """Give the place of each sample's label in `classes`. Raises DataError for a label that is not there."""
        labels = self._labels(positions)
        indices = pc.index_in(labels, value_set=pa.array(classes, pa.string()))
        if indices.null_count:
            unknown = sorted(set(labels.to_pylist()) - set(classes))
            raise DataError("every label must be one of the classes", value=", ".join(unknown[:5]))
        return np.asarray(indices, dtype=np.int64)

    def task_classes(self, positions: NDArray[np.int64], task: int) -> tuple[str, ...]:
        """Give the labels that these samples have for a further task, counted from 0, sorted."""
        return tuple(sorted(set(self._task_labels(positions, task).drop_null().to_pylist())))

    def task_indices(self, positions: NDArray[np.int64], task: int, classes: Sequence[str]) -> NDArray[np.int64]:
        """Give the place in `classes` of each sample's label for a further task, -1 where it has none."""
        indices = pc.index_in(self._task_labels(positions, task), value_set=pa.array(classes, pa.string()))
        return np.asarray(pc.fill_null(indices, -1), dtype=np.int64)

    def _task_labels(self, positions: NDArray[np.int64], task: int) -> pa.Array:
        lists = self.table.column("tasks").take(pa.array(positions)).combine_chunks()
        return pc.list_element(lists, task) if len(lists) else pa.nulls(0, pa.string())
