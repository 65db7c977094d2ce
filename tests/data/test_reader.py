from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import write_image_folder, write_parquet_shards

from orchestrator.config import DataConfig
from orchestrator.data.reader import PixelReader, blocks_of, read_fragments, write_fragments
from orchestrator.data.sources import Fragment, list_fragments
from orchestrator.errors import DataError

MakeConfig = Callable[..., DataConfig]
MakeCatalogue = Callable[..., pa.Table]
SUBSETS = {"north": {"cat": 12, "dog": 6}, "south": {"cat": 5, "cow": 7}}


def open_reader(config: DataConfig, directory: Path, *, cached: bool = True) -> PixelReader:
    uri = str(directory / "fragments.json")
    write_fragments(uri, list_fragments(config))
    pixels = str(directory / "pixels") if cached else None
    return PixelReader(data=config, image_size=16, resize="squash", pixels_uri=pixels, fragments_uri=uri)


@pytest.fixture(params=["parquet", "images"])
def config(request: pytest.FixtureRequest, tmp_path: Path, parquet_config: MakeConfig) -> DataConfig:
    if request.param == "parquet":
        return parquet_config(write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=3))
    return DataConfig(uri=str(write_image_folder(tmp_path / "data", subsets=SUBSETS)))


def test_pixels_are_the_same_from_the_cache_and_from_the_files(
    config: DataConfig, tmp_path: Path, make_catalogue: MakeCatalogue
) -> None:
    table = make_catalogue(config, tmp_path / "pixels", cache_fraction=0.5)
    assert 0 < np.count_nonzero(np.asarray(table.column("pixel_row")) < 0) < table.num_rows
    reader = open_reader(config, tmp_path)
    uncached = table.set_column(
        table.schema.get_field_index("pixel_row"), "pixel_row", pa.array([-1] * table.num_rows, pa.int32())
    )
    for mixed, from_files in zip(blocks_of(table, 7), blocks_of(uncached, 7), strict=True):
        np.testing.assert_array_equal(reader.read(mixed), reader.read(from_files))


def test_blocks_hold_every_row_once_and_never_two_fragments(config: DataConfig, make_catalogue: MakeCatalogue) -> None:
    table = make_catalogue(config)
    blocks = blocks_of(table, 4)
    assert all(block.num_rows <= 4 for block in blocks)
    assert all(len(set(block.column("fragment").to_pylist())) == 1 for block in blocks)
    ids = [identity for block in blocks for identity in block.column("id").to_pylist()]
    assert sorted(ids) == table.column("id").to_pylist()


def test_fragments_are_restored_as_they_were(tmp_path: Path) -> None:
    uri = str(tmp_path / "fragments.json")
    fragments = [
        Fragment(key=0, format="parquet", files=("a",), row_group=1, first_row=5, num_rows=2),
        Fragment(key=1, format="webdataset", files=("b",), num_rows=3, end_byte=9, row_errors=((1, "twice"),)),
        Fragment(key=2, format="images", files=("c", "d"), num_rows=2, error="gone"),
    ]
    write_fragments(uri, fragments)
    assert list(read_fragments(uri)) == fragments


def test_an_image_that_can_no_longer_be_read_is_named(
    config: DataConfig, tmp_path: Path, make_catalogue: MakeCatalogue
) -> None:
    table = make_catalogue(config)
    reader = open_reader(config, tmp_path, cached=False)
    block = blocks_of(table, 4)[0]
    file = block.column("file")[0].as_py()
    (Path(config.uri) / file).unlink()
    with pytest.raises(DataError, match=f"{file} row"):
        reader.read_contents(block)
