"""Reads labels and subsets out of the paths of image files and tar shards."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from orchestrator.config import DataConfig
from orchestrator.data.fragments import Field
from orchestrator.errors import ConfigError


@dataclass(frozen=True)
class PathTemplate:
    """Match paths against a template such as `{subset}/{label}/{name}`.

    A placeholder matches within one part of the path, as little as it can; only `name` reaches over several
    parts. A placeholder that is repeated must match the same text. Raises ConfigError for a malformed template.
    """

    text: str

    def __post_init__(self) -> None:
        self._pattern()

    @property
    def fields(self) -> tuple[str, ...]:
        """Give the names of the placeholders in order of first occurrence."""
        return tuple(self._pattern().groupindex)

    def match(self, path: str) -> dict[str, str] | None:
        """Give the text of every placeholder for a path relative to the root, None when it does not match."""
        found = self._pattern().fullmatch(path)
        return None if found is None else found.groupdict()

    def _pattern(self) -> re.Pattern[str]:
        pattern, seen = "", set()
        try:
            pieces = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise self._malformed() from error
        for literal, field, specification, conversion in pieces:
            pattern += re.escape(literal)
            if field is None:
                continue
            if not field.isidentifier() or specification or conversion:
                raise self._malformed()
            pattern += f"(?P={field})" if field in seen else f"(?P<{field}>{_reach(field)})"
            seen.add(field)
        if not seen:
            raise self._malformed()
        # The standard library keeps compiled patterns: matching many paths compiles once.
        return re.compile(pattern)

    def _malformed(self) -> ConfigError:
        return ConfigError(
            "data.path must be a template with names in braces",
            value=self.text,
            remedy="Write for example {subset}/{label}/{name}.",
        )


def placeholders(config: DataConfig) -> dict[Field, str]:
    """Give the placeholder that each field is read from, where a template has it."""
    named: dict[Field, str | None] = {
        "label": "label",
        "subset": "subset",
        "split": config.split.column or "split",
        "id": config.id,
        "together": config.split.keep_together,
    }
    return {field: name for field, name in named.items() if name is not None}


def read_path(path: str, template: PathTemplate, config: DataConfig) -> dict[Field, str] | None:
    """Read the fields that a template names out of a path, None when it does not match."""
    found = template.match(path)
    if found is None:
        return None
    return {field: found[name] for field, name in placeholders(config).items() if name in found}


def _reach(field: str) -> str:
    return r"[^\n]+" if field == "name" else r"[^/\n]+?"
