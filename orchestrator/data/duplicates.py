"""Finds images that show the same picture, leaves one of them, and keeps the picture on one side of the split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from orchestrator.config import DataConfig
from orchestrator.data.identity import assign_split, split_key
from orchestrator.data.perceptual import near_pairs, parse_hashes
from orchestrator.records import CopyCount

_MOST_NAMED_LABELS = 5
# A picture that is held out must not be learned: its copy in the rarer use stays.
_SPLITS = pa.array(["test", "val", "train"])
# Pairs that are held before they are merged: 64 MiB.
_MOST_PAIRS = 4_000_000

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


class CopyCounts(TypedDict):
    """Name the counts of copies of `records.Catalogue`."""

    exact_copies: CopyCount | None
    near_copies: CopyCount | None


def deduplicate(table: pa.Table, config: DataConfig, seed: int) -> tuple[pa.Table, CopyCounts]:
    """Say in an assembled table which images are copies, leave copies out as `deduplicate` has it; and count them.

    A picture is a connected component: of equal pixels for `none` and `exact`, of near looks for `near`. Every image
    but the first of its picture, by id, gets that one's id as `copy_of`. Unless `deduplicate` is `none`:

    - of the images of a picture that have one subset and label the first stays, the others are left out: not ok;
    - equal pixels of several labels are all bad rows, for nobody knows the right one; near looks may deceive: one stays
      for each label;
    - what stays is on one side of the split, and together in every other split (`together`). Where the data names the
      splits they are not overruled: the images in test stay, else those in val, else those in train, and the others are
      left out. Otherwise the split is that of the first, and what is kept together with one goes along.
    """
    if config.verify == "none":
        return table, CopyCounts(exact_copies=None, near_copies=None)
    usable = np.flatnonzero(np.asarray(table.column("ok")))
    samples = table.select(["id", "subset", "label", "split", "split_given", "together", "pixels", "perceptual"])
    samples = samples.take(pa.array(usable))
    exact = near = _firsts(_codes(samples.column("pixels")))
    if config.deduplicate == "near":
        near = _near_firsts(samples)
    counts = CopyCounts(
        exact_copies=_count(samples, exact),
        near_copies=_count(samples, near) if config.deduplicate == "near" else None,
    )
    if config.deduplicate == "none":
        return _with_copies(table, usable, exact), counts
    mixed = _num_labels(exact, samples.column("label"))[exact] > 1
    table = _with_several_labels(table, usable[mixed], exact[mixed])
    fate = _decide(samples.filter(pa.array(~mixed)), _firsts(near[~mixed]))
    places = usable[~mixed]
    table = _with_copies(table, places, fate.leaders)
    table = _without(table, places[~fate.stays])
    return _linked(table, places[fate.stays], fate.leaders[fate.stays], config, seed), counts


def copies_among(table: pa.Table, others: pa.Table) -> NDArray[np.bool_]:
    """Tell for each row of a table whether one of `others` shows the same picture: [n], False where none was opened.

    Both have the columns pixels and perceptual. Near looks count where both have hashes of them; chains of near copies
    are one picture, over both tables.
    """
    shown, known = ((rows.column("pixels"), rows.column("perceptual")) for rows in (table, others))
    copied = np.asarray(pc.is_in(shown[0], value_set=pc.unique(known[0])))
    if all(pc.any(pc.not_equal(looks, "")).as_py() for _, looks in (shown, known)):
        copied = copied | _near_copies(table, others)
    found: NDArray[np.bool_] = copied & np.asarray(pc.not_equal(shown[0], ""))
    return found


def _near_copies(table: pa.Table, others: pa.Table) -> NDArray[np.bool_]:
    opened = others.filter(pc.not_equal(others.column("pixels"), ""))
    pictures = _near_firsts(pa.concat_tables([rows.select(["pixels", "perceptual"]) for rows in (table, opened)]))
    found: NDArray[np.bool_] = np.isin(pictures[: table.num_rows], pictures[table.num_rows :])
    return found


def connect(size: int, pairs: Iterable[Pairs]) -> NDArray[np.int64]:
    """Number the connected components of the nodes 0 to `size` - 1: int64 [size].

    `pairs` are the two ends of edges, in pieces. The memory does not grow with their number.
    """
    components = np.arange(size, dtype=np.int64)
    pending: list[Pairs] = []
    held = 0
    for piece in pairs:
        pending.append(piece)
        held += len(piece[0])
        # Thousands of pictures alike make millions of pairs.
        if held > _MOST_PAIRS:
            components, pending, held = _merge(components, pending), [], 0
    return _merge(components, pending) if pending else components


def _merge(components: NDArray[np.int64], pairs: Sequence[Pairs]) -> NDArray[np.int64]:
    left, right = (components[np.concatenate(side)] for side in zip(*pairs, strict=True))
    edges = coo_array((np.ones(len(left), dtype=bool), (left, right)), (len(components), len(components)))
    _, merged = connected_components(edges, directed=False)
    renamed: NDArray[np.int64] = merged.astype(np.int64)[components]
    return renamed


# Pictures are told by the place of their first image: an array that has it for every image.


def _firsts(pictures: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, inverse = np.unique(pictures, return_index=True, return_inverse=True)
    places: NDArray[np.int64] = first[inverse].astype(np.int64)
    return places


def _near_firsts(samples: pa.Table) -> NDArray[np.int64]:
    """Tell pictures by their looks; those that are too plain to have any by their pixels."""
    is_plain = pc.equal(samples.column("perceptual"), "")
    looks = pc.if_else(is_plain, samples.column("pixels"), samples.column("perceptual"))
    different = pc.unique(looks)
    # What was never opened has neither.
    is_hashed = pc.and_(
        pc.is_in(different, value_set=pc.unique(samples.column("perceptual"))), pc.not_equal(different, "")
    )
    hashed = np.flatnonzero(np.asarray(is_hashed))
    hashes = parse_hashes(different.take(pa.array(hashed)).to_pylist())
    pairs = ((hashed[left], hashed[right]) for left, right in near_pairs(hashes))
    return _firsts(connect(len(different), pairs)[_codes(looks)])


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Number the different values in the order of their first occurrence."""
    return np.asarray(pc.index_in(column, value_set=pc.unique(column)), dtype=np.int64)


def _num_values(firsts: NDArray[np.int64], column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Count the different values that each picture has, at the place of its first image; 0 elsewhere."""
    values = _codes(column)
    width = int(values.max(initial=0)) + 1
    different = np.unique(firsts * width + values) // width
    return np.bincount(different, minlength=len(firsts)).astype(np.int64)


def _num_labels(firsts: NDArray[np.int64], labels: pa.ChunkedArray) -> NDArray[np.int64]:
    """Count the different labels that each picture has, at the place of its first image; none is no label."""
    known = np.asarray(pc.not_equal(labels, ""))
    if known.all():
        return _num_values(firsts, labels)
    counts = _num_values(firsts[known], labels.filter(pa.array(known)))
    return np.pad(counts, (0, max(0, len(firsts) - len(counts))))


def _count(samples: pa.Table, firsts: NDArray[np.int64]) -> CopyCount:
    return CopyCount(
        copies=len(firsts) - len(np.unique(firsts)),
        copies_within_subsets=len(firsts) - int(_num_values(firsts, samples.column("subset")).sum()),
        pictures_across_splits=int((_num_values(firsts, samples.column("split")) > 1).sum()),
        pictures_of_several_labels=int((_num_labels(firsts, samples.column("label")) > 1).sum()),
    )


@dataclass(frozen=True, kw_only=True)
class _Fate:
    """Tell which images stay, and for every image the place of the first one that stays of its picture."""

    stays: NDArray[np.bool_]
    leaders: NDArray[np.int64]


def _decide(samples: pa.Table, firsts: NDArray[np.int64]) -> _Fate:
    count = len(firsts)
    rank = np.asarray(pc.index_in(samples.column("split"), value_set=_SPLITS))
    rank = np.where(np.asarray(samples.column("split_given")), rank, 0)
    lowest = np.full(count, len(_SPLITS))
    np.minimum.at(lowest, firsts, rank)
    candidates = np.flatnonzero(rank == lowest[firsts])
    subsets, labels = _codes(samples.column("subset")), _codes(samples.column("label"))
    units = (firsts * (subsets.max(initial=0) + 1) + subsets) * (labels.max(initial=0) + 1) + labels
    _, first = np.unique(units[candidates], return_index=True)
    staying = candidates[first]
    leaders = np.full(count, count)
    np.minimum.at(leaders, firsts[staying], staying)
    stays = np.zeros(count, dtype=np.bool_)
    stays[staying] = True
    return _Fate(stays=stays, leaders=leaders[firsts])


# What is written into the table. `places` are rows of it; leaders are places among them.


def _with_copies(table: pa.Table, places: NDArray[np.int64], leaders: NDArray[np.int64]) -> pa.Table:
    copies = np.flatnonzero(leaders != np.arange(len(leaders)))
    ids = table.column("id").take(pa.array(places[leaders[copies]])).to_pylist()
    return _replaced(table, "copy_of", places[copies], ids)


def _without(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    originals = table.column("copy_of").take(pa.array(places)).to_pylist()
    return _not_ok(table, places, [f"a copy of {identity}" for identity in originals])


def _with_several_labels(table: pa.Table, places: NDArray[np.int64], firsts: NDArray[np.int64]) -> pa.Table:
    labels: dict[int, set[str]] = {}
    for first, label in zip(firsts.tolist(), table.column("label").take(pa.array(places)).to_pylist(), strict=True):
        labels.setdefault(first, set()).add(label)
    named = {first: ", ".join(sorted(found)[:_MOST_NAMED_LABELS]) for first, found in labels.items()}
    return _not_ok(table, places, [f"the same picture has several labels: {named[first]}" for first in firsts.tolist()])


def _linked(
    table: pa.Table, places: NDArray[np.int64], leaders: NDArray[np.int64], config: DataConfig, seed: int
) -> pa.Table:
    """Keep the images of one picture together, with all that each is kept together with."""
    _, inverse, counts = np.unique(leaders, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[inverse] > 1)
    unions = _unions(_split_keys(table, places[several]), inverse[several])
    if not unions:
        return table
    usable = np.flatnonzero(np.asarray(table.column("ok")))
    found = [unions.get(key) for key in _split_keys(table, usable)]
    moved = usable[np.array([key is not None for key in found], dtype=bool)]
    shared = [key for key in found if key is not None]
    table = _replaced(table, "together", moved, shared)
    assigned = np.flatnonzero(~np.asarray(table.column("split_given"))[moved])
    splits = [assign_split(shared[index], config.split.fractions, seed) for index in assigned.tolist()]
    return _replaced(table, "split", moved[assigned], splits)


def _unions(keys: Sequence[str], pictures: NDArray[np.int64]) -> dict[str, str]:
    """Give for split keys that pictures connect the one that stands for them all, that of the first image."""
    names = list(dict.fromkeys(keys))
    number = {name: index for index, name in enumerate(names)}
    nodes = np.array([number[key] for key in keys], dtype=np.int64)
    components = connect(len(names) + int(pictures.max(initial=-1)) + 1, [(nodes, len(names) + pictures)])
    firsts = _firsts(components[: len(names)])
    sizes = np.bincount(firsts)[firsts] if names else firsts
    return {name: names[first] for name, first, size in zip(names, firsts, sizes, strict=True) if size > 1}


def _split_keys(table: pa.Table, places: NDArray[np.int64]) -> list[str]:
    rows = table.select(["id", "together"]).take(pa.array(places))
    return [split_key(*pair) for pair in zip(*(column.to_pylist() for column in rows.columns), strict=True)]


def _not_ok(table: pa.Table, places: NDArray[np.int64], reasons: Sequence[str]) -> pa.Table:
    table = _replaced(table, "ok", places, [False] * len(places))
    return _replaced(table, "reason", places, reasons)


def _replaced(table: pa.Table, name: str, places: NDArray[np.int64], values: Sequence[object]) -> pa.Table:
    if not len(places):
        return table
    column = table.column(name).to_pylist()
    for place, value in zip(places.tolist(), values, strict=True):
        column[place] = value
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), pa.array(column, table.schema.field(index).type))
