"""What a store fails to give is read again, and ends the work where it goes on failing: no row is bad for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from builders import write_image_folder
from flaky_store import FlakyStore, flaky_store
from format_examples import FORMATS, make_samples

from orchestrator import storage, store_failures
from orchestrator.config import DataConfig
from orchestrator.data.image_index import index_folders
from orchestrator.data.sources import list_fragments, listing_digest, read_fragment
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import UnavailableError

Upload = Callable[[Path], str]

# What pyarrow itself does not try again, which takes it seconds.
REFUSED = 400


@pytest.fixture
def store(s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    monkeypatch.setattr(store_failures, "PAUSES_S", (0.0, 0.0))
    with flaky_store(s3_endpoint) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        yield store


@pytest.fixture
def upload(s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Upload:
    def put(directory: Path) -> str:
        with monkeypatch.context() as straight:
            straight.setenv("AWS_ENDPOINT_URL", s3_endpoint)
            for path in directory.rglob("*.*"):
                name = str(path.relative_to(directory))
                storage.write_bytes(storage.join(s3_bucket, "data", name), path.read_bytes())
        return f"{s3_bucket}/data"

    return put


def read_all(config: DataConfig) -> pa.Table:
    fragments = list_fragments(config)
    return pa.concat_tables([read_fragment(fragment, config, with_image=True) for fragment in fragments])


@pytest.mark.parametrize("format", ["parquet", "parquet structs", "csv", "webdataset", "images"])
def test_a_store_that_fails_for_a_while_makes_no_row_bad(
    format: str, tmp_path: Path, store: FlakyStore, upload: Upload
) -> None:
    samples = make_samples()
    local = FORMATS[format](tmp_path / "data", [samples[:7], samples[7:]])
    config = local.model_copy(update={"uri": upload(tmp_path / "data")})
    wanted = read_all(local)
    fragments = list_fragments(config)
    for key in ("", fragments[0].files[0]):
        store.refuse(key, times=2, status=REFUSED)
        read = pa.concat_tables([read_fragment(fragment, config, with_image=True) for fragment in fragments])
        # How a file is missing is said in the words of its store.
        assert read.drop_columns("error").equals(wanted.drop_columns("error"))
        assert read.column("error").is_null().equals(wanted.column("error").is_null())
        assert store.refused == 2
    for key in ("data", "" if format == "images" else fragments[0].files[0]):
        store.refuse(key, times=2, status=REFUSED)
        assert list_fragments(config) == fragments
        assert store.refused == 2


@pytest.mark.parametrize("format", ["parquet", "csv", "webdataset", "images"])
def test_a_store_that_goes_on_failing_is_an_error_of_its_own(
    format: str, tmp_path: Path, store: FlakyStore, upload: Upload
) -> None:
    samples = make_samples()
    local = FORMATS[format](tmp_path / "data", [samples[:7], samples[7:]])
    config = local.model_copy(update={"uri": upload(tmp_path / "data")})
    fragment = list_fragments(config)[-1]
    store.refuse(str(fragment.files[0]), times=99, status=REFUSED)
    with pytest.raises(UnavailableError, match="HTTP status 400"):
        read_fragment(fragment, config, with_image=True)
    store.refuse("data", times=99, status=REFUSED)
    with pytest.raises(UnavailableError):
        list_fragments(config)
    with pytest.raises(UnavailableError):
        listing_digest(config)


@pytest.mark.slow
def test_an_overloaded_store_and_a_cut_connection_are_waited_for(
    tmp_path: Path, store: FlakyStore, upload: Upload
) -> None:
    config = DataConfig(uri=upload(write_image_folder(tmp_path, subsets={"a": {"cat": 1}})))
    [fragment] = list_fragments(config)
    for status in (503, 0):
        # pyarrow tries it three or four times by itself.
        store.refuse("png", times=5, status=status)
        assert read_fragment(fragment, config, with_image=True).column("error").to_pylist() == [None]
        assert store.refused == 5


def test_an_object_that_is_gone_is_the_fault_of_its_row(tmp_path: Path, store: FlakyStore, upload: Upload) -> None:
    config = DataConfig(uri=upload(write_image_folder(tmp_path, subsets={"a": {"cat": 3}})))
    [fragment] = list_fragments(config)
    store.refuse("1.png", times=99, status=404)
    errors = read_fragment(fragment, config, with_image=True).column("error").to_pylist()
    assert [error is None for error in errors] == [True, False, True]


def test_an_index_leaves_no_folder_out_for_a_store_that_fails(
    tmp_path: Path, store: FlakyStore, upload: Upload
) -> None:
    uri = upload(write_image_folder(tmp_path, subsets={"a": {"cat": 3}}))
    template = PathTemplate("{subset}/{label}/{name}")
    store.refuse("", times=99, status=REFUSED)
    with pytest.raises(UnavailableError):
        index_folders(uri, ["a"], template, most_files=9, most_folders=9)
    store.refuse("", times=2, status=REFUSED)
    part = index_folders(uri, ["a"], template, most_files=9, most_folders=9)
    assert (part.images.num_rows, part.left_out.num_rows) == (3, 0)
