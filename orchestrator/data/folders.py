"""Reads image folders: some hundred files a fragment, with labels and subsets from their paths."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from pyarrow import fs

from orchestrator.config import DataConfig
from orchestrator.data.fragments import (
    CONFIG_KEYS,
    TEXT_FIELDS,
    WHOLE_SUBSET,
    Field,
    Fragment,
    describe_failure,
    make_rows,
)
from orchestrator.data.listing import Listing
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import ConfigError

FILES_PER_FRAGMENT = 256
# Reading small files waits for the disk or the store, not for the processor.
_READ_THREADS = 8


def list_chunks(listing: Listing, config: DataConfig, required: Collection[Field]) -> list[Fragment]:
    """Make a fragment of every 256 files, in the order of their paths.

    Raises ConfigError when the template lacks a field that is required or named.
    """
    _check_template(PathTemplate(config.path), config, required)
    paths = [file.path for file in listing.files]
    chunks = [tuple(paths[i : i + FILES_PER_FRAGMENT]) for i in range(0, len(paths), FILES_PER_FRAGMENT)]
    return [
        Fragment(key=key, format="images", files=files, row_group=None, first_row=0, num_rows=len(files), error=None)
        for key, files in enumerate(chunks)
    ]


def read_files(
    fragment: Fragment,
    config: DataConfig,
    file_system: fs.FileSystem,
    root: str,
    *,
    with_image: bool,
    rows: Sequence[int] | None,
) -> pa.Table:
    """Read the files of a fragment, or those at the positions `rows` in it; see `sources.read_fragment`."""
    files = list(fragment.files) if rows is None else [fragment.files[row] for row in rows]
    described = [_describe(path, config) for path in files]
    errors: list[str | None] = [error for _, error in described]
    image = None
    if with_image:
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            read = list(pool.map(lambda path: _read_file(file_system, f"{root}/{path}"), files))
        image = pa.array([content for content, _ in read], pa.large_binary())
        errors = [failure or error for error, (_, failure) in zip(errors, read, strict=True)]
    texts = {field: pa.array([found.get(field) for found, _ in described], pa.string()) for field in TEXT_FIELDS}
    return make_rows(files, [0] * len(files), texts, errors=errors, image=image)


def _placeholders(config: DataConfig) -> dict[Field, str]:
    """Give the placeholder that each field is read from; without one of its own, a file's path identifies it."""
    named: dict[Field, str | None] = {
        "label": "label",
        "subset": "subset",
        "split": config.split.column or "split",
        "id": config.id,
        "together": config.split.keep_together,
    }
    return {field: name for field, name in named.items() if name is not None}


def _check_template(template: PathTemplate, config: DataConfig, required: Collection[Field]) -> None:
    named = {"split": config.split.column, "id": config.id, "together": config.split.keep_together}
    for field, placeholder in _placeholders(config).items():
        if placeholder in template.fields:
            continue
        if named.get(field) is not None:
            raise ConfigError(
                f"{CONFIG_KEYS[field]} must be one of the names in data.path for an image folder",
                value=placeholder,
                remedy=f"data.path is {template.text}.",
            )
        if field in required:
            raise ConfigError(
                f"data.path must name the {field} of an image",
                value=template.text,
                remedy=f"Put {{{field}}} where the path says it, for example {{subset}}/{{label}}/{{name}}.",
            )


def _describe(path: str, config: DataConfig) -> tuple[dict[Field, str | None], str | None]:
    """Read the text fields of a path, and why it cannot be read or None."""
    found = PathTemplate(config.path).match(path)
    if found is None:
        return {"id": path}, f"the path does not match {config.path}"
    texts = {field: found[name] for field, name in _placeholders(config).items() if name in found}
    return {"id": path, "subset": WHOLE_SUBSET, **texts}, None


def _read_file(file_system: fs.FileSystem, path: str) -> tuple[bytes | None, str | None]:
    try:
        with file_system.open_input_file(path) as stream:
            return stream.read(), None
    except OSError as error:
        return None, describe_failure(error)
