from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import write_image_folder, write_parquet_shards
from format_examples import FORMATS, make_samples

from orchestrator import storage
from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.samples import CachedSamples
from orchestrator.data.sources import listing_digest

MakeConfig = Callable[..., DataConfig]
MakeCatalogue = Callable[..., pa.Table]
SUBSETS = {"north": {"cat": 6, "dog": 4}}


def upload(directory: Path, uri: str) -> str:
    for path in directory.rglob("*.*"):
        storage.write_bytes(storage.join(uri, str(path.relative_to(directory))), path.read_bytes())
    return uri


@pytest.mark.parametrize("format", ["parquet", "images"])
def test_an_object_store_gives_the_same_catalogue_and_pixels_as_a_disk(
    tmp_path: Path,
    s3_bucket: str,
    parquet_config: MakeConfig,
    make_catalogue: MakeCatalogue,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if format == "parquet":
        local = parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS))
    else:
        local = DataConfig(uri=str(write_image_folder(tmp_path / "data", subsets=SUBSETS)))
    remote = local.model_copy(update={"uri": upload(tmp_path / "data", f"{s3_bucket}/{format}/data")})
    assert listing_digest(remote) == listing_digest(remote)
    tables = {
        str(tmp_path / "pixels"): make_catalogue(local, tmp_path / "pixels"),
        f"{s3_bucket}/{format}/pixels": make_catalogue(remote, f"{s3_bucket}/{format}/pixels"),
    }
    first, second = tables.values()
    assert first.equals(second)
    taken = [
        CachedSamples.of(SampleTable(table), np.arange(10), uri, ("cat", "dog")).take(np.arange(10))
        for uri, table in tables.items()
    ]
    np.testing.assert_array_equal(*taken)
    assert taken[0].std() > 0


@pytest.mark.parametrize("format", ["parquet structs", "csv", "jsonl", "webdataset"])
def test_images_that_tables_name_and_tars_are_read_from_an_object_store(
    tmp_path: Path, s3_bucket: str, make_catalogue: MakeCatalogue, format: str
) -> None:
    samples = make_samples()
    local = FORMATS[format](tmp_path / "data", [samples[:7], samples[7:]])
    remote = local.model_copy(update={"uri": upload(tmp_path / "data", f"{s3_bucket}/data")})
    tables = [make_catalogue(config) for config in (local, remote)]
    first, second = (table.filter(table.column("ok")) for table in tables)
    assert first.num_rows == 9
    assert first.equals(second)
