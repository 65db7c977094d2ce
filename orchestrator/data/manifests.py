"""Describes files whose bytes are checked when they are read: a JSON manifest beside each, written last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import storage

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Describe a file: the digest of its bytes, their number, and what else its reader wants to know."""

    digest: str
    size: int
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: bytes, **facts: Any) -> Manifest:
        """Describe a file of this content."""
        return cls(digest=storage.digest_bytes([content]), size=len(content), facts=facts)

    @classmethod
    def parse(cls, text: bytes) -> Manifest | None:
        """Read a manifest; None when the text is none."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def to_json(self) -> bytes:
        """Write the manifest as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    def describes(self, content: bytes) -> bool:
        """Tell whether a file of this content is whole."""
        return len(content) == self.size and storage.digest_bytes([content]) == self.digest

    def describes_file(self, path: Path) -> bool:
        """Tell whether a file of this machine is whole, in bounded memory. Raises OSError when it is not there."""
        return path.stat().st_size == self.size and storage.digest_bytes(_chunks(path)) == self.digest


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
