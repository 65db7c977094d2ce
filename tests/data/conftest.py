"""What the tests of reading data share: configurations and a catalogue made in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.config import DataConfig
from orchestrator.data.catalogue import assemble, examine
from orchestrator.data.pixels import write_pixels
from orchestrator.data.sources import list_fragments, read_fragment

MakeConfig = Callable[..., DataConfig]
MakeCatalogue = Callable[..., pa.Table]


@pytest.fixture
def parquet_config() -> MakeConfig:
    def make(directory: Path, **changes: Any) -> DataConfig:
        named: dict[str, Any] = {"image": "image", "label": "label", "subset": "subset", "id": "id"}
        return DataConfig(uri=str(directory), **{**named, **changes})

    return make


@pytest.fixture
def make_catalogue() -> MakeCatalogue:
    def make(
        config: DataConfig,
        pixels: Path | str | None = None,
        *,
        image_size: int = 16,
        seed: int = 0,
        cache_fraction: float = 1.0,
    ) -> pa.Table:
        parts = []
        for fragment in list_fragments(config):
            rows = read_fragment(fragment, config, with_image=config.verify == "decode")
            part, images = examine(rows, config, fragment.key, image_size, "squash", seed, cache_fraction)
            parts.append(part)
            if pixels is not None:
                write_pixels(str(pixels), fragment.key, images)
        return assemble(parts)

    return make
