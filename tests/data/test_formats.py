"""What every format must give for the same samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from format_examples import FORMATS, make_samples

from orchestrator.config import DataConfig
from orchestrator.data import folders, parquet, text_tables, webdataset
from orchestrator.data.catalogue import data_fingerprint
from orchestrator.data.identity import image_digest
from orchestrator.data.reader import PixelReader, blocks_of, write_fragments
from orchestrator.data.sources import list_fragments, listing_digest, read_fragment

MakeCatalogue = Callable[..., pa.Table]

ALL = ("image", "label", "subset")
PLACES = ["file", "row", "fragment", "pixel_row"]
BAD = {"corrupt", "imageless", "unlabelled"}


@pytest.fixture(autouse=True)
def _small_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "FILES_PER_FRAGMENT", 4)
    monkeypatch.setattr(parquet, "PATHS_PER_FRAGMENT", 4)
    monkeypatch.setattr(text_tables, "ROWS_PER_FRAGMENT", 4)
    monkeypatch.setattr(webdataset, "SAMPLES_PER_FRAGMENT", 4)


def write(format: str, directory: Path, *, reverse: bool = False) -> DataConfig:
    samples = make_samples()
    shards = [samples[:7], samples[7:]]
    return FORMATS[format](directory, shards[::-1] if reverse else shards)


def read_all(config: DataConfig, *, with_image: bool) -> pa.Table:
    fragments = list_fragments(config, required=ALL)
    return pa.concat_tables([read_fragment(fragment, config, with_image=with_image) for fragment in fragments])


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_samples(format: str, tmp_path: Path, make_catalogue: MakeCatalogue) -> None:
    table = make_catalogue(write(format, tmp_path / "data"))
    good = table.filter(table.column("ok")).select(["id", "label", "subset", "split", "content"]).to_pylist()
    wanted = [
        {
            **{name: sample[name] for name in ("id", "label", "subset", "split")},
            "content": image_digest(sample["image"]),
        }
        for sample in make_samples()
        if sample["id"] not in BAD
    ]
    assert good == sorted(wanted, key=lambda row: row["id"])
    assert (table.num_rows, len(good)) == (12, 9)


@pytest.mark.parametrize("format", FORMATS)
def test_the_order_of_shards_does_not_matter(format: str, tmp_path: Path, make_catalogue: MakeCatalogue) -> None:
    one, other = (
        make_catalogue(write(format, tmp_path / str(reverse) / "data", reverse=reverse)) for reverse in (False, True)
    )
    assert data_fingerprint(one) == data_fingerprint(other)
    good, again = (table.filter(table.column("ok")).drop_columns(PLACES) for table in (one, other))
    assert good.equals(again)


@pytest.mark.parametrize("format", FORMATS)
def test_without_images_the_fields_are_the_same(format: str, tmp_path: Path) -> None:
    config = write(format, tmp_path / "data")
    with_image, without = (read_all(config, with_image=with_image) for with_image in (True, False))
    assert "image" not in without.column_names
    texts = ["file", "row", "label", "subset", "split", "id", "together"]
    assert without.select(texts).equals(with_image.select(texts))


@pytest.mark.parametrize("format", FORMATS)
def test_any_rows_of_a_fragment_can_be_read_again(format: str, tmp_path: Path) -> None:
    config = write(format, tmp_path / "data")
    fragments = list_fragments(config)
    assert len(fragments) > 1
    assert [fragment.key for fragment in fragments] == list(range(len(fragments)))
    for fragment in fragments:
        whole = read_fragment(fragment, config, with_image=True)
        rows = [fragment.num_rows - 1, 0, fragment.num_rows - 1]
        assert read_fragment(fragment, config, with_image=True, rows=rows).to_pylist() == whole.take(rows).to_pylist()


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_are_the_same_from_the_cache_and_from_the_files(
    format: str, tmp_path: Path, make_catalogue: MakeCatalogue
) -> None:
    config = write(format, tmp_path / "data")
    table = make_catalogue(config, tmp_path / "pixels", cache_fraction=0.5)
    table = table.filter(table.column("ok"))
    uri = str(tmp_path / "fragments.json")
    write_fragments(uri, list_fragments(config))
    reader = PixelReader(
        data=config, image_size=16, resize="squash", pixels_uri=str(tmp_path / "pixels"), fragments_uri=uri
    )
    place = table.schema.get_field_index("pixel_row")
    assert 0 < np.count_nonzero(np.asarray(table.column(place)) < 0) < 9
    uncached = table.set_column(place, "pixel_row", pa.array([-1] * 9, pa.int32()))
    for mixed, from_files in zip(blocks_of(table, 3), blocks_of(uncached, 3), strict=True):
        np.testing.assert_array_equal(reader.read(mixed), reader.read(from_files))


@pytest.mark.parametrize("format", FORMATS)
def test_the_digest_of_the_listing_knows_every_shard(format: str, tmp_path: Path) -> None:
    config = write(format, tmp_path / "data")
    before = listing_digest(config)
    assert listing_digest(config) == before
    fragment = list_fragments(config)[-1]
    (tmp_path / "data" / fragment.files[0]).unlink()
    assert listing_digest(config) != before
