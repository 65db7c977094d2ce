"""Reads image folders: some hundred files a fragment, with labels and subsets from their paths."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
from pyarrow import fs

from orchestrator.config import DataConfig
from orchestrator.data.fragments import (
    CONFIG_KEYS,
    TEXT_FIELDS,
    WHOLE_SUBSET,
    Field,
    Fragment,
    make_rows,
    number_fragments,
)
from orchestrator.data.image_files import read_places
from orchestrator.data.listing import Listing
from orchestrator.data.templates import PathTemplate, placeholders, read_path
from orchestrator.errors import ConfigError

FILES_PER_FRAGMENT = 256

_DEFAULT_TEMPLATE = "{subset}/{label}/{name}"


def folder_template(config: DataConfig) -> PathTemplate:
    """Give the template of an image folder's paths. Raises ConfigError when it is malformed."""
    return PathTemplate(config.path or _DEFAULT_TEMPLATE)


def list_chunks(
    listing: Listing, config: DataConfig, required: Collection[Field], file_system: fs.FileSystem, root: str
) -> list[Fragment]:
    """Make a fragment of every 256 files, in the order of their paths.

    Raises ConfigError when the template lacks a field that is required or named.
    """
    _check_template(folder_template(config), config, required)
    paths = [file.path for file in listing.files]
    chunks = [tuple(paths[i : i + FILES_PER_FRAGMENT]) for i in range(0, len(paths), FILES_PER_FRAGMENT)]
    return number_fragments(Fragment(format="images", files=files, num_rows=len(files)) for files in chunks)


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
    template = folder_template(config)
    described = [_describe(path, template, config) for path in files]
    errors: list[str | None] = [error for _, error in described]
    image = None
    if with_image:
        image, failures = read_places([(file_system, f"{root}/{path}") for path in files])
        errors = [failure or error for error, failure in zip(errors, failures, strict=True)]
    texts = {field: pa.array([found.get(field) for found, _ in described], pa.string()) for field in TEXT_FIELDS}
    return make_rows(files, [0] * len(files), texts, errors=errors, image=image)


def _check_template(template: PathTemplate, config: DataConfig, required: Collection[Field]) -> None:
    named = {"split": config.split.column, "id": config.id, "together": config.split.keep_together}
    for field, placeholder in placeholders(config).items():
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


def _describe(path: str, template: PathTemplate, config: DataConfig) -> tuple[dict[Field, str], str | None]:
    """Read the text fields of a path, and why it cannot be read or None."""
    found = read_path(path, template, config)
    if found is None:
        return {"id": path}, f"the path does not match {template.text}"
    return {"id": path, "subset": WHOLE_SUBSET, **found}, None
