"""Every readable row of an input comes into exactly one shard, in parallel, and a stopped run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import ROW_SCHEMA, build_rows, write_image_folder, write_parquet_shards

from orchestrator import storage
from orchestrator.cluster.ingest import IngestPlan, make_catalogue
from orchestrator.cluster.sharding import MANIFEST, QUARANTINE, shard_input
from orchestrator.config import DataConfig
from orchestrator.data.shards import ShardSet
from orchestrator.errors import ConfigError, StorageError

pytestmark = pytest.mark.usefixtures("ray_cluster")

SUBSETS = {"north": {"cat": 40, "dog": 21}, "south": {"cat": 16}}


def silent(line: str) -> None:
    pass


def config_of(uri: Path | str, **changes: Any) -> DataConfig:
    named: dict[str, Any] = {"image": "image", "label": "label", "subset": "subset", "id": "id"}
    return DataConfig(uri=str(uri), **{**named, **changes})


def write_uneven(folder: Path) -> Path:
    """Write row groups of very different lengths, and a file that is no table."""
    rows = build_rows(subsets=SUBSETS)
    folder.mkdir()
    for number, (start, stop, group) in enumerate([(0, 3, 1), (3, 53, 50), (53, 54, 1), (54, 77, 5)]):
        table = pa.Table.from_pylist(rows[start:stop], schema=ROW_SCHEMA)
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=group)
    (folder / "broken.parquet").write_bytes(b"no table")
    return folder


def read_shards(uri: str) -> list[dict[str, Any]]:
    tables = [storage.read_table(storage.join(uri, name)) for name in storage.list_names(uri) if name[0] != "_"]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_every_row_is_in_one_shard_or_in_quarantine(tmp_path: Path) -> None:
    lines: list[str] = []
    out = tmp_path / "out"
    made = shard_input(config_of(write_uneven(tmp_path / "data")), str(out), 10, say=lines.append)
    assert (made.num_images, made.num_quarantined, len(made.shards)) == (77, 1, 8)
    expected = [{**row, "split": None, "together": None} for row in build_rows(subsets=SUBSETS)]
    found = read_shards(str(out))
    assert sorted(found, key=lambda row: str(row["id"])) == sorted(expected, key=lambda row: str(row["id"]))
    [bad] = pq.read_table(out / QUARANTINE).to_pylist()
    assert bad["file"] == "broken.parquet" and bad["reason"].startswith("the file cannot be read")
    assert lines[-1].startswith("shard: 78 images") and "1 bad" in lines[-1]
    assert ShardSet.from_json((out / MANIFEST).read_bytes(), source=MANIFEST) == made
    assert sorted(path.name for path in out.iterdir() if path.name[0] == "_") == [
        "_input.json",
        MANIFEST,
        QUARANTINE,
    ]
    assert [storage.digest_bytes([(out / shard.name).read_bytes()]) for shard in made.shards] == [
        shard.digest for shard in made.shards
    ]


def test_the_same_input_gives_the_same_files(tmp_path: Path) -> None:
    config = config_of(write_uneven(tmp_path / "data"))
    for name in ("first", "second"):
        shard_input(config, str(tmp_path / name), 9, say=silent)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_shards_are_the_same_samples_in_the_same_splits(tmp_path: Path) -> None:
    photos = DataConfig(uri=str(write_image_folder(tmp_path / "photos", subsets=SUBSETS)))
    shard_input(photos, str(tmp_path / "out"), 10, say=silent)
    catalogues = []
    for number, config in enumerate((photos, config_of(tmp_path / "out"))):
        plan = IngestPlan(
            data=config,
            image_size=16,
            resize="crop",
            seed=0,
            run_uri=str(tmp_path / f"run-{number}"),
            folder="catalogue",
            stall_timeout_s=60,
        )
        lines: list[str] = []
        catalogues.append(make_catalogue(plan, fingerprint="test", say=lines.append))
        assert lines[-1].startswith("catalogue: 77 images") and "0 bad" in lines[-1]
    assert catalogues[0].num_images == 77
    assert catalogues[0].data_fingerprint == catalogues[1].data_fingerprint


def test_a_stopped_run_goes_on_after_what_it_has_written_and_a_finished_one_has_nothing_to_do(tmp_path: Path) -> None:
    config, out = config_of(write_uneven(tmp_path / "data")), tmp_path / "out"
    made = shard_input(config, str(out), 10, say=silent)
    whole = contents(out)
    lines: list[str] = []
    assert shard_input(config, str(out), 10, say=lines.append) == made
    assert lines == [f"shard: up to date, {out} was made from this input"]
    # As a run leaves it that ended before its manifest: some shards with their notes, one without.
    (out / MANIFEST).unlink()
    (out / QUARANTINE).unlink()
    kept, torn = made.shards[2], made.shards[5]
    note = out / "_parts" / f"{Path(kept.name).stem}.json"
    storage.write_bytes(str(note), kept.model_dump_json().encode())
    before = (out / kept.name).stat().st_mtime_ns
    (out / torn.name).write_bytes(b"another")
    assert shard_input(config, str(out), 10, say=silent) == made
    assert contents(out) == whole
    assert (out / kept.name).stat().st_mtime_ns == before


def test_an_output_that_holds_anything_else_is_refused(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS)
    shard_input(config_of(data), str(tmp_path / "out"), 10, say=silent)
    with pytest.raises(StorageError, match="must be empty, or hold shards of the same input"):
        shard_input(config_of(data), str(tmp_path / "out"), 11, say=silent)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"must be empty.*notes.txt"):
        shard_input(config_of(data), str(tmp_path / "other"), 10, say=silent)
    with pytest.raises(ConfigError, match="must lie outside of their input"):
        shard_input(config_of(data), str(data / "shards"), 10, say=silent)


@pytest.mark.slow
def test_shards_go_to_an_object_store(tmp_path: Path, s3_bucket: str) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets={"north": {"cat": 7}})
    made = shard_input(config_of(data), str(tmp_path / "out"), 3, say=silent)
    assert "7 images in 3 shards" in shard_in_a_process(data, f"{s3_bucket}/out")
    assert len(read_shards(f"{s3_bucket}/out")) == 7
    for shard in made.shards:
        assert storage.read_bytes(f"{s3_bucket}/out/{shard.name}") == (tmp_path / "out" / shard.name).read_bytes()


def shard_in_a_process(data: Path, output: str) -> str:
    """Run the command beside the tests' cluster, whose workers know no object store."""
    columns = [word for column in ("image", "label", "subset", "id") for word in (f"--{column}", column)]
    finished = subprocess.run(
        [sys.executable, "-m", "orchestrator", "shard", str(data), output, "--rows-per-shard", "3", *columns],
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
