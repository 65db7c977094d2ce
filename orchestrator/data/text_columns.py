"""Reads columns of texts alone: no image is opened, and nothing is read that was not asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from orchestrator.config import DataConfig
from orchestrator.data.folders import folder_template
from orchestrator.data.fragments import WHOLE_SUBSET, Fragment
from orchestrator.data.listing import find_root, list_input
from orchestrator.data.parquet import known_columns, read_text_columns
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.errors import ConfigError, DataError

SUBSET: Final = "subset"
LABEL: Final = "label"

_WHERE = "columns of a table, fields of tar samples, or names in data.path for an image folder"


def read_columns(fragment: Fragment, config: DataConfig, columns: Sequence[str]) -> pa.Table:
    """Read the subset, the label and other columns of a fragment: texts or dictionaries of texts, null where absent.

    Gives the columns subset and label, and one for each of `columns`, named by `attribute_name`: a column of a table,
    a field of tar samples, a name in data.path for an image folder. Raises DataError saying why when the fragment
    cannot be read.
    """
    if fragment.error is not None:
        raise DataError(fragment.error)
    if fragment.format not in ("parquet", "images"):
        return _from_rows(fragment, config, columns)
    fields = {SUBSET: config.subset, LABEL: config.label} if fragment.format == "parquet" else _named_in_path(config)
    if config.is_multi_label:
        # Lists are no texts, and several labels none to count here.
        fields[LABEL] = None
    attributes = {attribute_name(index): column for index, column in enumerate(columns)}
    sources: dict[str, str | None] = {**fields, **attributes}
    wanted = sorted({source for source in sources.values() if source is not None})
    found = (
        _from_paths(fragment, config, wanted) if fragment.format == "images" else _from_file(fragment, config, wanted)
    )
    absent = pa.nulls(fragment.num_rows, pa.string())
    whole = {SUBSET: pa.DictionaryArray.from_arrays(pa.array(np.zeros(fragment.num_rows, np.int32)), [WHOLE_SUBSET])}
    return pa.table(
        {
            name: whole.get(name, absent) if source is None else found.get(source, absent)
            for name, source in sources.items()
        }
    )


def attribute_name(index: int) -> str:
    """Name the column of the attribute at a place in `diversity.columns`: its own name may be that of another field."""
    return f"attribute {index}"


def read_tasks(fragment: Fragment, config: DataConfig) -> list[list[str | None]]:
    """Read the labels of every further task of a fragment's rows, None where there is none, or only blanks."""
    columns = (column.to_pylist() for column in read_attributes(fragment, config, config.tasks))
    return [[(label or "").strip() or None for label in column] for column in columns]


def read_attributes(fragment: Fragment, config: DataConfig, columns: Sequence[str]) -> list[pa.ChunkedArray]:
    """Read the texts of each of the columns for a fragment's rows, null where there is none or the row is bad."""
    if not columns:
        return []
    try:
        table = read_columns(fragment, config, columns)
    except DataError:
        # Its rows are bad, and say why where they are read.
        return [pa.chunked_array([pa.nulls(fragment.num_rows, pa.string())]) for _ in columns]
    return [table.column(attribute_name(index)).cast(pa.string()) for index in range(len(columns))]


def require_attributes(config: DataConfig, columns: Sequence[str], *, key: str = "diversity.columns") -> None:
    """Raise ConfigError when one of the columns that `key` of the experiment names is not to be had from the input."""
    if not columns:
        return
    listing = list_input(config)
    if listing.format not in ("parquet", "images"):
        _require_listed(config, columns, key)
        return
    known = (
        known_columns(listing, *find_root(config.uri))
        if listing.format == "parquet"
        else set(folder_template(config).fields)
    )
    for column in columns:
        if column not in known:
            close = difflib.get_close_matches(column, known, n=1)
            raise ConfigError(
                f"{key} must name {_WHERE}",
                value=column,
                remedy=f"{f'Did you mean {close[0]}? ' if close else ''}There are {', '.join(sorted(known))}.",
            )


def _require_listed(config: DataConfig, columns: Sequence[str], key: str) -> None:
    # What else is wrong with the section is said in its own words.
    list_fragments(config)
    for column in columns:
        try:
            list_fragments(_with_attribute(config, column))
        except ConfigError as error:
            raise ConfigError(f"{key} must name {_WHERE}", value=column, remedy=error.remedy) from error


def _with_attribute(config: DataConfig, column: str) -> DataConfig:
    """Name a column where no other use of it stands in the way: what keeps samples together is any text."""
    return config.model_copy(update={"split": config.split.model_copy(update={"keep_together": column})})


def _from_rows(fragment: Fragment, config: DataConfig, columns: Sequence[str]) -> pa.Table:
    """Read every attribute by itself: lines and tar samples are parsed whole anyway. A bad row has no label."""
    reads = [read_fragment(fragment, _with_attribute(config, column), with_image=False) for column in columns]
    rows = reads[0] if reads else read_fragment(fragment, config, with_image=False)
    errors = rows.column("error")
    if errors.null_count == 0:
        raise DataError(errors[0].as_py())
    label = pc.if_else(pc.is_null(errors), rows.column(LABEL), pa.scalar(None, pa.string()))
    attributes = {attribute_name(index): read.column("together") for index, read in enumerate(reads)}
    return pa.table({SUBSET: rows.column(SUBSET), LABEL: label, **attributes})


def _named_in_path(config: DataConfig) -> dict[str, str | None]:
    names = folder_template(config).fields
    return {field: field if field in names else None for field in (SUBSET, LABEL)}


def _from_file(fragment: Fragment, config: DataConfig, columns: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    return read_text_columns(fragment, *find_root(config.uri), columns)


def _from_paths(fragment: Fragment, config: DataConfig, names: Sequence[str]) -> dict[str, pa.Array]:
    template = folder_template(config)
    found = [template.match(path) or {} for path in fragment.files]
    return {name: pa.array([texts.get(name) for texts in found], pa.string()) for name in names}
