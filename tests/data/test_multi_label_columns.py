"""Any number of labels an image: read from every format, kept sorted, and told as indicators of the single labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows, encode_image
from format_examples import write_tar

from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable, assemble, examine, summarise
from orchestrator.data.multi_label import (
    NO_LABEL,
    UNIT_SEPARATOR,
    canonical_labels,
    join_labels,
    label_indicators,
    labels_of,
    require_one_label,
)
from orchestrator.data.samples import CachedSamples
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.errors import ConfigError, DataError

LABELS: list[list[str] | None] = [["sun", "sea"], [], None, ["sea"], ["sun", "sun"]]
KEPT = ["sea\x1fsun", "", "", "sea", "sun"]
COLUMNS = {"image": "image", "label": "labels", "subset": "subset", "id": "id"}
PNG = encode_image(np.full((8, 8, 3), 90, dtype=np.uint8))


def catalogue(config: DataConfig) -> pa.Table:
    parts = []
    for fragment in list_fragments(config, required=["image", "label", "subset"]):
        rows = read_fragment(fragment, config, with_image=True)
        parts.append(examine(rows, config, fragment.key, 8, "crop", 0, 1.0, needs_label=False)[0])
    return assemble(parts)


def config_of(directory: Path, **changes: object) -> DataConfig:
    return DataConfig.model_validate({"uri": str(directory), **COLUMNS, "label_separator": "|", **changes})


def samples() -> list[dict[str, Any]]:
    return [
        {"image": PNG, "labels": labels, "subset": "north" if number < 3 else "south", "id": str(number)}
        for number, labels in enumerate(LABELS)
    ]


def parquet_lists(directory: Path) -> DataConfig:
    pq.write_table(pa.Table.from_pylist(samples()), directory / "x.parquet")
    return config_of(directory)


def parquet_texts(directory: Path) -> DataConfig:
    rows = [{**row, "labels": None if row["labels"] is None else " | ".join(row["labels"])} for row in samples()]
    pq.write_table(pa.Table.from_pylist(rows), directory / "x.parquet")
    return config_of(directory)


def json_lines(directory: Path) -> DataConfig:
    (directory / "x.png").write_bytes(PNG)
    rows = [{**row, "image": "x.png"} for row in samples()]
    (directory / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return config_of(directory, format="jsonl")


def csv(directory: Path) -> DataConfig:
    (directory / "x.png").write_bytes(PNG)
    rows = [f"x.png,{'+'.join(row['labels'] or [])},{row['subset']},{row['id']}" for row in samples()]
    (directory / "x.csv").write_text("\n".join(["image,labels,subset,id", *rows]))
    return config_of(directory, format="csv", label_separator="+")


def tars(directory: Path) -> DataConfig:
    entries = []
    for row in samples():
        fields = {"labels": row["labels"], "subset": row["subset"], "id": row["id"]}
        entries += [(f"{row['id']}.json", json.dumps(fields).encode()), (f"{row['id']}.png", PNG)]
    write_tar(directory / "x.tar", entries)
    return config_of(directory)


@pytest.mark.parametrize("write", [parquet_lists, parquet_texts, json_lines, csv, tars])
def test_labels_are_read_from_lists_and_parted_texts(write: Callable[[Path], DataConfig], tmp_path: Path) -> None:
    table = catalogue(write(tmp_path))
    assert table.column("ok").to_pylist() == [True] * 5, table.column("reason").to_pylist()
    assert table.column("label").to_pylist() == KEPT
    assert summarise(table, multi_label=True)["labels"] == ["sea", "sun"]


def test_folders_name_labels_too(tmp_path: Path) -> None:
    for name in ("sun+sea", "sea"):
        (tmp_path / "north" / name).mkdir(parents=True)
        (tmp_path / "north" / name / "x.png").write_bytes(PNG)
    config = DataConfig(uri=str(tmp_path), label_separator="+")
    assert sorted(catalogue(config).column("label").to_pylist()) == ["sea", "sea\x1fsun"]


def test_a_list_whose_label_holds_the_separator_is_a_bad_row_beside_good_ones(tmp_path: Path) -> None:
    rows = samples()
    rows[1]["labels"] = ["a|b"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    table = catalogue(config_of(tmp_path))
    assert table.column("ok").to_pylist() == [True, False, True, True, True]
    assert table.column("reason")[1].as_py() == "a label of the field labels holds data.label_separator"


def test_lists_of_labels_need_a_separator_in_the_experiment(tmp_path: Path) -> None:
    parquet_lists(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.label must name a column of texts"):
        list_fragments(config_of(tmp_path, label_separator=None), required=["label"])


def test_nested_lists_are_no_labels(tmp_path: Path) -> None:
    table = pa.table({"image": [PNG], "labels": [[["a"]]], "subset": ["s"], "id": ["1"]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=r"data\.label must name"):
        list_fragments(config_of(tmp_path), required=["label"])
    with pytest.raises(DataError, match="list or an object"):
        join_labels([["a"]], "labels", "|")


def test_a_single_label_is_what_it_was_without_the_key(tmp_path: Path) -> None:
    rows = build_rows(subsets={"north": {"sea|sun": 2}}, image_px=8)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    table = catalogue(config_of(tmp_path, label="label", label_separator=None))
    assert SampleTable(table).classes() == ("sea|sun",)
    assert SampleTable(table).targets(np.arange(2), ["sea|sun"]).dtype == np.int64


def test_labels_are_written_once_sorted_and_without_blanks() -> None:
    assert canonical_labels(" b, a,,b ", ",") == f"a{UNIT_SEPARATOR}b"
    assert canonical_labels(None, ",") == canonical_labels(" , ", ",") == ""
    # What parts labels in the catalogue parts them everywhere: no label can hold it.
    assert labels_of(canonical_labels("a\x1fb", ",")) == ["a", "b"]
    assert join_labels([3, None, "", True], "labels", "|") == "3|true"


def test_samples_are_told_by_indicators_counted_by_label_and_refused_when_unknown(tmp_path: Path) -> None:
    table = SampleTable(catalogue(parquet_lists(tmp_path)), multi_label=True)
    everyone = table.where()
    assert table.classes(everyone[:2]) == table.classes() == ("sea", "sun")
    assert table.classes(everyone[3:4]) == ("sea",)
    indicators = table.targets(everyone, ["sea", "sun"])
    assert indicators.dtype == np.float32
    assert indicators.tolist() == [[1, 1], [0, 0], [0, 0], [1, 0], [0, 1]]
    assert sorted(table.label_counts(everyone).tolist()) == [2, 2, 2]
    occurrences = table.occurrences(everyone[:3]).to_pylist()
    assert [(row["subset"], row["label"]) for row in occurrences] == [
        ("north", "sea"),
        ("north", "sun"),
        ("north", NO_LABEL),
        ("north", NO_LABEL),
    ]
    with pytest.raises(DataError, match="sun"):
        table.targets(everyone, ["sea"])
    cached = CachedSamples.of(table, everyone, str(tmp_path), ["sea", "sun"])
    assert cached.labels.tolist() == indicators.tolist()
    assert CachedSamples.joined(cached, cached).select(np.array([5])).labels.tolist() == [[1, 1]]


def test_no_samples_have_no_indicators() -> None:
    assert label_indicators([], ["a"]).shape == (0, 1)


def test_what_needs_one_label_names_itself(tmp_path: Path) -> None:
    require_one_label(config_of(tmp_path, label_separator=None), "a ranking")
    with pytest.raises(ConfigError, match="a ranking needs images of one label each"):
        require_one_label(config_of(tmp_path), "a ranking")
