"""Reads the labels of images that may have any number of them, and writes them as one text of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import DataConfig
from orchestrator.data.columns import as_text
from orchestrator.data.fragments import Field
from orchestrator.errors import ConfigError, DataError

UNIT_SEPARATOR = "\x1f"
"""Parts the labels of an image in the catalogue: a control character that is there for this, and in no name."""

NO_LABEL = "(no label)"
"""What an image without any label counts as where labels are counted."""


def require_one_label(config: DataConfig, what: str) -> None:
    """Raise ConfigError where images have any number of labels, which `what` cannot do with."""
    if config.is_multi_label:
        raise ConfigError(
            f"{what} needs images of one label each",
            value=f"data.label_separator {config.label_separator}",
            remedy="Leave the separator out, or do without.",
        )


def field_text(field: Field, value: object, column: str, config: DataConfig) -> str | None:
    """Write a parsed value as the text of a field, as `as_text` does; a list of labels as one text of them.

    Raises what `as_text` and `join_labels` raise.
    """
    if field == "label" and config.is_multi_label and isinstance(value, list):
        return join_labels(value, column, config.label_separator or "")
    return as_text(value, column)


def join_labels(labels: Sequence[object], column: str, separator: str) -> str:
    """Write a list of labels as a text that the separator parts; an entry that is null or empty says nothing.

    Raises DataError for an entry that holds the separator, or that is a list or an object itself.
    """
    texts = [text for label in labels if (text := as_text(label, column))]
    for text in texts:
        if separator in text:
            raise DataError(f"a label of the field {column} holds data.label_separator")
    return separator.join(texts)


def canonical_labels(text: str | None, separator: str) -> str:
    """Write the labels of a text, each once and sorted, as the catalogue has them: empty where there are none.

    Blanks around a label are left out. The unit separator parts labels too.
    """
    parts = (text or "").replace(UNIT_SEPARATOR, separator).split(separator)
    return UNIT_SEPARATOR.join(sorted({label for part in parts if (label := part.strip())}))


def labels_of(text: str) -> list[str]:
    """Give the labels of a text of the catalogue."""
    return text.split(UNIT_SEPARATOR) if text else []


def label_indicators(texts: Sequence[str], classes: Sequence[str]) -> NDArray[np.float32]:
    """Tell of every text of the catalogue which labels it has: float32 [n, K] of 0 and 1, in the order of `classes`.

    Raises DataError for a label that is not there.
    """
    places = {label: place for place, label in enumerate(classes)}
    found = np.zeros((len(texts), len(classes)), dtype=np.float32)
    for row, text in enumerate(texts):
        for label in labels_of(text):
            if label not in places:
                raise DataError("every label must be one of the classes", value=label)
            found[row, places[label]] = 1.0
    return found
