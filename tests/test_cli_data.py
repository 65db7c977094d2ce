"""The commands that prepare data end with what an experiment says to read it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from builders import build_rows, write_image_folder, write_parquet_shards

from orchestrator.cli import main
from orchestrator.config import DataConfig
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.data.text_columns import read_columns, read_tasks, require_attributes
from orchestrator.experiment_file import validate_experiment

SUBSETS = {"north": {"cat": 6, "dog": 4}}


def printed_section(output: str) -> dict[str, object]:
    section: dict[str, object] = yaml.safe_load(output.partition("An experiment reads it with\n")[2])["data"]
    return section


def test_index_writes_a_table_and_says_how_to_read_it(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_image_folder(tmp_path / "photos", subsets=SUBSETS)
    (folder / "stray.jpg").write_bytes(b"")
    assert main(["index", f"{folder}/", str(tmp_path / "index.parquet")]) == 0
    shown = capsys.readouterr().out
    assert "10 images" in shown
    assert "left out 1 x the path does not match {subset}/{label}/{name}" in shown
    section = printed_section(shown)
    assert section["image_root"] == str(folder)
    table = pq.read_table(str(section["uri"]))
    assert all((folder / path).is_file() for path in table.column(str(section["image"])).to_pylist())
    assert {section["label"], section["subset"], section["id"]} <= set(table.column_names)
    columns = [word for key in ("image", "label", "subset", "id") for word in (f"--{key}", str(section[key]))]
    shards = [str(section["uri"]), str(tmp_path / "shards"), "--image-root", str(folder), *columns]
    assert main(["shard", *shards]) == 0
    assert "10 images in 1 shards" in capsys.readouterr().out


def test_shard_writes_shards_that_its_own_words_read(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS)
    (data / "broken.parquet").write_bytes(b"no table")
    options = ["--rows-per-shard", "4", "--image", "image", "--label", "label", "--subset", "subset"]
    assert main(["shard", str(data), str(tmp_path / "out"), *options]) == 0
    shown = capsys.readouterr().out
    assert "10 images in 3 shards" in shown
    assert "1 x the file cannot be read" in shown
    config = DataConfig.model_validate(printed_section(shown))
    rows = pa.concat_tables([read_fragment(found, config, with_image=True) for found in list_fragments(config)])
    assert rows.num_rows == 10
    assert rows.column("error").null_count == 10
    assert sorted(rows.column("label").to_pylist()) == ["cat"] * 6 + ["dog"] * 4


def test_shard_reads_what_an_experiment_says_and_what_options_change(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image_folder(tmp_path / "photos", subsets=SUBSETS)
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text("name: x\ndata: {uri: photos, path: '{subset}/{label}/{name}'}\n")
    assert main(["shard", str(experiment), str(tmp_path / "out"), "--path", "{site}/{label}/{name}"]) == 0
    [shard] = (tmp_path / "out").glob("shard-*")
    assert set(pq.read_table(shard).column("subset").to_pylist()) == {"all"}


def test_shards_run_with_the_experiment_that_they_were_made_from(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**row, "foot": "soft", "weather": "wet", "scene": str(row["id"])[:9]} for row in build_rows(subsets=SUBSETS)
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "a.parquet")
    data = {"uri": str(tmp_path / "data"), "image": "image", "label": "label", "tasks": ["foot"], "id": "id"}
    split = {"fractions": {"val": 0.25, "test": 0.25}, "keep_together": "scene"}
    experiment = {
        "name": "x",
        "data": {**data, "subset": "subset", "split": split},
        "diversity": {"columns": ["weather"]},
        "train": {"scope": "multitask"},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    assert main(["shard", str(tmp_path / "experiment.yaml"), str(tmp_path / "out"), "--column", "scene"]) == 0
    again = validate_experiment({**experiment, "data": printed_section(capsys.readouterr().out)})
    assert (again.data.tasks, again.data.split.fractions.val) == (["foot"], 0.25)
    [shard] = (tmp_path / "out").glob("shard-*")
    assert pq.read_schema(shard).names[6:] == ["foot", "weather", "scene"]
    require_attributes(again.data, [*again.data.tasks, *again.diversity.columns])
    [fragment] = list_fragments(again.data)
    found = [read_fragment(fragment, again.data, with_image=False), read_columns(fragment, again.data, ["weather"])]
    assert found[0].column("together").to_pylist() == [row["scene"] for row in rows]
    assert found[1].column("attribute 0").to_pylist() == ["wet"] * 10
    assert read_tasks(fragment, again.data) == [["soft"] * 10]


def test_mistakes_are_one_error_and_a_code(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS)
    assert main(["shard", str(data), str(tmp_path / "out"), "--format", "parket"]) == 1
    assert "Did you mean parquet?" in capsys.readouterr().err
    assert main(["shard", str(data), str(tmp_path / "out"), "--image", "images"]) == 1
    assert "Did you mean image?" in capsys.readouterr().err
    # A mistake leaves nothing behind that the corrected command would stumble over.
    assert main(["shard", str(data), str(tmp_path / "out"), "--image", "image"]) == 0
    assert main(["index", str(tmp_path / "gone"), str(tmp_path / "index.parquet")]) == 1
    assert "Error: " in capsys.readouterr().err


def test_a_shard_without_a_readable_row_is_a_failure(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").write_bytes(b"no table")
    assert main(["shard", str(tmp_path / "data"), str(tmp_path / "out"), "--image", "image"]) == 1
    assert "must hold a row that can be read" in capsys.readouterr().err
