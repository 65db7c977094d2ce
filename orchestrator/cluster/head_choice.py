"""Says which subset's head predicts an image: the same for all images, or what the data says of each."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from orchestrator.config import DataConfig, InputFormat
from orchestrator.errors import ConfigError, DataError
from orchestrator.records import ModelCard

_MOST_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class HeadChoice:
    """Name the subset that all images are of, or the column or the path template that says it of each; or nothing."""

    subset: str | None = None
    column: str | None = None
    path: str | None = None

    def require_fit(self, card: ModelCard) -> None:
        """Check that this tells the head of every image where subsets have heads of their own, and nothing elsewhere.

        Raises ConfigError, and DataError for a subset without a head, naming those that have one.
        """
        chosen = [key for key, value in vars(self).items() if value is not None]
        if card.heads == "column":
            if chosen:
                raise ConfigError(
                    "a head can be chosen only where subsets have heads of their own",
                    value=", ".join(f"{key} {getattr(self, key)}" for key in chosen),
                    remedy="Leave it out; --subset goes with --label-shift too.",
                )
            return
        if len(chosen) != 1:
            raise ConfigError(
                "the head must be named by exactly one of --subset, --subset-column and --path with {subset}",
                value=" and ".join(chosen) or "none of them",
                remedy=f"There are heads for {_named(card)}.",
            )
        if self.path is not None and "{subset}" not in self.path:
            raise ConfigError("--path must name {subset}", value=self.path, remedy="Write for example {subset}/{name}.")
        if self.subset is not None:
            require_head(self.subset, card)

    def data(self, uri: str, format: InputFormat, image: str) -> DataConfig:
        """Say how to read images so that their subsets are read too."""
        return DataConfig(uri=uri, format=format, image=image, subset=self.column, path=self.path or "{name}")

    def subsets(self, rows: pa.Table) -> list[str | None]:
        """Give the subset of each row [n]; None where nothing says it."""
        if self.column is None and self.path is None:
            return [self.subset] * rows.num_rows
        return [None if name is None else name.strip() for name in rows.column("subset").to_pylist()]


ANY_HEAD = HeadChoice()
"""Chooses nothing: for models that have one head, or heads for columns of labels, which all predict."""


def require_head(subset: str | None, card: ModelCard) -> None:
    """Check that a subset has a head of its own. Raises DataError naming those that have."""
    if subset not in [head.task for head in card.tasks]:
        raise DataError(
            "a subset must have a head", value=subset or "none", remedy=f"There are heads for {_named(card)}."
        )


def _named(card: ModelCard) -> str:
    names = [head.task for head in card.tasks]
    more = len(names) - _MOST_NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMED])} and {more} more"
