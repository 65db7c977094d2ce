"""Reads columns of texts alone: no image is opened, and nothing is read that was not asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from orchestrator.config import DataConfig
from orchestrator.data.folders import DEFAULT_TEMPLATE
from orchestrator.data.fragments import WHOLE_SUBSET, Field, Fragment
from orchestrator.data.listing import find_root, list_input
from orchestrator.data.parquet import known_columns, read_text_columns
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import ConfigError, DataError

SUBSET: Final = "subset"
LABEL: Final = "label"

_LABEL_ALONE: tuple[Field, ...] = (LABEL,)
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


def require_attributes(config: DataConfig, columns: Sequence[str]) -> None:
    """Raise ConfigError when one of `diversity.columns` is not to be had from the input."""
    if not columns:
        return
    listing = list_input(config)
    if listing.format not in ("parquet", "images"):
        for column in columns:
            _require_listed(config, column)
        return
    known = (
        known_columns(listing, *find_root(config.uri))
        if listing.format == "parquet"
        else set(PathTemplate(config.path or DEFAULT_TEMPLATE).fields)
    )
    for column in columns:
        if column not in known:
            close = difflib.get_close_matches(column, known, n=1)
            raise ConfigError(
                f"diversity.columns must name {_WHERE}",
                value=column,
                remedy=f"{f'Did you mean {close[0]}? ' if close else ''}There are {', '.join(sorted(known))}.",
            )


def _require_listed(config: DataConfig, column: str) -> None:
    try:
        list_fragments(_as_label(config, column), required=_LABEL_ALONE)
    except ConfigError as error:
        raise ConfigError(f"diversity.columns must name {_WHERE}", value=column, remedy=error.remedy) from error


def _as_label(config: DataConfig, column: str) -> DataConfig:
    return config.model_copy(update={"label": column})


def _from_rows(fragment: Fragment, config: DataConfig, columns: Sequence[str]) -> pa.Table:
    """Read each attribute as if it were the label: lines and tar samples are parsed whole anyway."""
    rows = read_fragment(fragment, config, with_image=False)
    attributes = {
        attribute_name(index): read_fragment(fragment, _as_label(config, column), with_image=False).column(LABEL)
        for index, column in enumerate(columns)
    }
    return pa.table({SUBSET: rows.column(SUBSET), LABEL: rows.column(LABEL), **attributes})


def _named_in_path(config: DataConfig) -> dict[str, str | None]:
    names = PathTemplate(config.path or DEFAULT_TEMPLATE).fields
    return {field: field if field in names else None for field in (SUBSET, LABEL)}


def _from_file(fragment: Fragment, config: DataConfig, columns: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    return read_text_columns(fragment, *find_root(config.uri), columns)


def _from_paths(fragment: Fragment, config: DataConfig, names: Sequence[str]) -> dict[str, pa.Array]:
    template = PathTemplate(config.path or DEFAULT_TEMPLATE)
    found = [template.match(path) or {} for path in fragment.files]
    return {name: pa.array([texts.get(name) for texts in found], pa.string()) for name in names}
