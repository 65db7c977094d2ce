"""Says which columns of a table hold a sample's fields, and turns their values into text."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping

from orchestrator.config import DataConfig
from orchestrator.data.fragments import CONFIG_KEYS, Field
from orchestrator.errors import ConfigError, DataError


def named_columns(config: DataConfig) -> dict[Field, str]:
    """Give the column of every field that names one."""
    named: dict[Field, str | None] = {
        "image": config.image,
        "label": config.label,
        "subset": config.subset,
        "split": config.split.column,
        "id": config.id,
        "together": config.split.keep_together,
    }
    return {field: column for field, column in named.items() if column is not None}


def require_columns(
    columns: Mapping[Field, str], required: Collection[Field], known: Collection[str], *, what: str
) -> None:
    """Check that every field that is required or named has its column among those known.

    `what` says what a name stands for. Raises ConfigError naming the field and what there is.
    """
    for field, key in CONFIG_KEYS.items():
        column = columns.get(field)
        if (column is None and field not in required) or column in known:
            continue
        close = difflib.get_close_matches(column or "", known, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise ConfigError(
            f"{key} must name {what}",
            value=column or "nothing",
            remedy=f"{hint}They have {', '.join(sorted(known)) or 'none'}.",
        )


def require_identity(config: DataConfig, *, remedy: str) -> None:
    """Check that samples are told apart where no image is opened. Raises ConfigError."""
    if config.verify == "none" and config.id is None:
        raise ConfigError(
            "data.id must name a column when data.verify is none: the digest of an image needs the image",
            value="nothing",
            remedy=f"{remedy}, or set data.verify to decode.",
        )


def as_text(value: object, name: str) -> str | None:
    """Write a parsed value as the text of a field; None for null, not-a-number and empty text.

    Raises DataError naming the field `name` for a list, an object, and text that is no Unicode.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        # Whole numbers beside missing ones often come as floats.
        value = int(value)
    if not isinstance(value, str | int | float):
        raise DataError(f"the field {name} holds a list or an object")
    text = str(value)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"the field {name} holds text that is no Unicode")
    return text or None
