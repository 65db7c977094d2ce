"""Columns are read alone, as texts, and a mistake in their names is found before anything is read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import write_image_folder, write_parquet_shards
from format_examples import FORMATS, WriteFormat, make_samples, write_tar

from orchestrator.config import DataConfig
from orchestrator.data.sources import list_fragments
from orchestrator.data.text_columns import read_columns, require_attributes
from orchestrator.errors import ConfigError, DataError

NAMES = ("subset", "label", "attribute 0")
SUBSETS = {"a": {"cat": 2, "dog": 1}}


def config(directory: Path, **changes: object) -> DataConfig:
    named = {"uri": str(directory), "image": "image", "label": "label", "subset": "subset"}
    return DataConfig.model_validate(named | changes)


def test_numbers_and_missing_values_become_texts_and_nulls(tmp_path: Path) -> None:
    table = pa.table({"image": [b"", b""], "label": [3, 4], "subset": ["a", "b"], "camera": [1.0, None]})
    pq.write_table(table, tmp_path / "x.parquet")
    data = config(tmp_path)
    (fragment,) = list_fragments(data)
    found = read_columns(fragment, data, ["camera", "unknown"])
    assert found.to_pydict() == {
        "subset": ["a", "b"],
        "label": ["3", "4"],
        "attribute 0": ["1", None],
        "attribute 1": [None, None],
    }


def test_data_without_subsets_is_one(tmp_path: Path) -> None:
    data = config(write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1), subset=None)
    (fragment,) = list_fragments(data)
    assert read_columns(fragment, data, []).column("subset").to_pylist() == ["all"] * 3


def test_names_in_paths_are_columns(tmp_path: Path) -> None:
    write_image_folder(tmp_path, subsets=SUBSETS)
    data = DataConfig(uri=str(tmp_path), path="{site}/{label}/{name}")
    (fragment,) = list_fragments(data, required=["label"])
    found = read_columns(fragment, data, ["site"])
    assert found.column("attribute 0").to_pylist() == ["a"] * 3
    assert sorted(found.column("label").to_pylist()) == ["cat", "cat", "dog"]


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    data = config(write_parquet_shards(tmp_path, subsets=SUBSETS, num_shards=1))
    (fragment,) = list_fragments(data)
    (tmp_path / fragment.files[0]).unlink()
    with pytest.raises(DataError, match="the file cannot be read"):
        read_columns(fragment, data, [])


def test_a_column_that_no_file_has_is_named_with_those_there_are(tmp_path: Path) -> None:
    data = config(write_parquet_shards(tmp_path / "shards", subsets=SUBSETS, num_shards=1))
    require_attributes(data, ["id", "label"])
    with pytest.raises(ConfigError, match=r"diversity.columns must name columns.*got labl.*Did you mean label"):
        require_attributes(data, ["labl"])
    write_image_folder(tmp_path / "folder", subsets=SUBSETS)
    with pytest.raises(ConfigError, match=r"got weather.*There are label, name, subset"):
        require_attributes(DataConfig(uri=str(tmp_path / "folder")), ["weather"])


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_columns(write: WriteFormat, tmp_path: Path) -> None:
    samples = make_samples()
    data = write(tmp_path / "data", [samples[:7], samples[7:]])
    require_attributes(data, ["split"])
    tables = [read_columns(fragment, data, ["split"]) for fragment in list_fragments(data)]
    found = pa.concat_tables([table.cast(pa.schema([(name, pa.string()) for name in NAMES])) for table in tables])
    counted = Counter(zip(*(found.column(name).to_pylist() for name in NAMES), strict=True))
    expected = Counter((row["subset"], row["label"], row["split"]) for row in samples if row["label"] is not None)
    assert {key: count for key, count in counted.items() if key[1] is not None} == expected
    assert counted.total() == len(samples)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_a_column_that_no_format_has_is_refused(write: WriteFormat, tmp_path: Path) -> None:
    data = write(tmp_path / "data", [make_samples()])
    with pytest.raises(ConfigError, match=r"diversity\.columns must name .*, got weather"):
        require_attributes(data, ["weather"])


def test_a_template_that_says_the_label_says_nothing_of_other_columns(tmp_path: Path) -> None:
    write_tar(tmp_path / "siteA-cat.tar", [("0.png", b""), ("0.json", b'{"weather": "rain"}')])
    data = DataConfig(uri=str(tmp_path), path="{subset}-{label}.tar", id="__key__")
    (fragment,) = list_fragments(data)
    assert read_columns(fragment, data, ["weather"]).to_pylist() == [
        {"subset": "siteA", "label": "cat", "attribute 0": "rain"}
    ]
    with pytest.raises(ConfigError, match=r"diversity\.columns must name"):
        require_attributes(data, ["whether"])


def test_a_sample_that_is_bad_has_no_label(tmp_path: Path) -> None:
    entries = [(name, b"x") for name in ("1.png", "1.cls", "2.png", "2.cls", "1.json")]
    write_tar(tmp_path / "a.tar", entries)
    data = DataConfig(uri=str(tmp_path), label="cls", id="__key__")
    (fragment,) = list_fragments(data)
    assert read_columns(fragment, data, []).column("label").to_pylist() == [None, "x", None]


def test_lines_that_are_gone_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label,subset\na.png,cat,north\n")
    data = config(tmp_path)
    (fragment,) = list_fragments(data)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(DataError, match="the file cannot be read"):
        read_columns(fragment, data, [])


def test_another_mistake_in_the_section_is_not_laid_on_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label,subset\na.png,cat,north\n")
    with pytest.raises(ConfigError, match=r"data\.id must name"):
        require_attributes(config(tmp_path, id="nummer"), ["label"])


def test_columns_of_lists_are_refused(tmp_path: Path) -> None:
    table = pa.table({"image": [b""], "label": ["a"], "subset": ["a"], "tags": [["x", "y"]]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=r"diversity\.columns must name .*, got tags"):
        require_attributes(config(tmp_path), ["tags"])
