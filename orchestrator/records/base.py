"""What every record is: frozen, typed, and JSON with a fingerprint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import RecordError


class Value(BaseModel):
    """Hold an immutable part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(Value):
    """Hold what one stage found, with the digest of the inputs that it was made from."""

    fingerprint: str = ""

    def to_json(self) -> str:
        """Write the record as JSON; not-a-number becomes null, which no record needs to tell from absence."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> Self:
        """Read a record. Raises RecordError naming `source` when the text is not such a record."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RecordError(
                f"{source} must be a {cls.__name__} record",
                value=f"{error.error_count()} mistakes: {error}",
                remedy="Remove the file to make it anew.",
            ) from error


class OfGroup(Protocol):
    """Belong to one group."""

    @property
    def group(self) -> str:
        """Name the group."""
        ...


Found = TypeVar("Found", bound=OfGroup)


def of_group(name: str, records: Iterable[Found]) -> Found | None:
    """Give the record of a group; None where there is none."""
    return next((record for record in records if record.group == name), None)
