"""Further label columns: read from every format, kept with the samples, and missing where there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows

from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable, assemble, data_fingerprint, examine
from orchestrator.data.samples import CachedSamples
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.data.targets import Targets
from orchestrator.data.text_columns import read_tasks, require_attributes
from orchestrator.errors import ConfigError
from orchestrator.records import TaskClasses

NAMED = {"image": "image", "label": "label", "subset": "subset", "id": "id"}
SUBSETS = {"a": {"cat": 3, "cow": 3}}
LEGS = {"cat": "soft", "cow": "hard"}


def write(directory: Path, **changes: object) -> DataConfig:
    rows = [{**row, "foot": f" {LEGS[str(row['label'])]} ", "farm": None} for row in build_rows(subsets=SUBSETS)]
    rows[0]["foot"] = None
    rows[1]["foot"] = "  "
    directory.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), directory / "x.parquet")
    return DataConfig.model_validate({"uri": str(directory), **NAMED, "tasks": ["foot"], **changes})


def catalogue(config: DataConfig) -> pa.Table:
    parts = []
    for fragment in list_fragments(config):
        rows = read_fragment(fragment, config, with_image=True)
        parts.append(examine(rows, config, fragment.key, 8, "crop", 0, 0.0, read_tasks(fragment, config))[0])
    return assemble(parts)


def test_labels_of_further_tasks_are_cleaned_and_missing_where_there_is_nothing(tmp_path: Path) -> None:
    config = write(tmp_path, tasks=["foot", "farm"])
    (fragment,) = list_fragments(config)
    feet, farms = read_tasks(fragment, config)
    labels = read_fragment(fragment, config, with_image=False).column("label").to_pylist()
    assert feet == [None, None, *(LEGS[label] for label in labels[2:])]
    assert farms == [None] * 6


def test_text_tables_have_tasks_too(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("file,label,foot\na.png,cat,soft\nb.png,cow,\n")
    config = DataConfig(uri=str(tmp_path), image="file", label="label", tasks=["foot"], subset=None)
    (fragment,) = list_fragments(config, required=["label"])
    assert read_tasks(fragment, config) == [["soft", None]]


def test_a_fragment_that_is_gone_has_no_labels(tmp_path: Path) -> None:
    config = write(tmp_path)
    (fragment,) = list_fragments(config)
    (tmp_path / "x.parquet").unlink()
    assert read_tasks(fragment, config) == [[None] * 6]


def test_a_misspelt_task_is_found_before_anything_is_read(tmp_path: Path) -> None:
    config = write(tmp_path)
    require_attributes(config, ["foot"], key="data.tasks")
    with pytest.raises(ConfigError, match=r"data\.tasks must name .*, got fot\. Did you mean foot"):
        require_attributes(config, ["fot"], key="data.tasks")


def test_samples_know_the_place_of_every_label(tmp_path: Path) -> None:
    table = SampleTable(catalogue(write(tmp_path)))
    everything = table.where()
    assert table.task_classes(everything, 0) == ("hard", "soft")
    found = table.task_indices(everything, 0, ("hard", "soft"))
    rows = table.table.to_pylist()
    assert found.tolist() == [-1 if row["tasks"] == [None] else ["hard", "soft"].index(row["tasks"][0]) for row in rows]
    assert sorted(found.tolist()).count(-1) == 2


def test_training_samples_have_a_column_for_each_task(tmp_path: Path, make_catalogue: Callable[..., pa.Table]) -> None:
    config = write(tmp_path / "data", tasks=[])
    table = make_catalogue(config, tmp_path / "pixels")
    tasks = pa.array([["soft"], [None]] * 3, pa.list_(pa.string()))
    table = table.set_column(table.column_names.index("tasks"), "tasks", tasks)
    tasks = [TaskClasses(task="animal", classes=["cat", "cow"]), TaskClasses(task="coat", classes=["hard", "soft"])]
    targets = Targets(classes=("cat", "cow"), tasks=tasks)
    samples = CachedSamples.of(SampleTable(table), np.arange(6), str(tmp_path / "pixels"), targets.classes)
    samples = replace(samples, labels=targets.of_rows(table))
    assert samples.labels.shape == (6, 2) and samples.labels[:, 1].tolist() == [1, -1] * 3
    assert CachedSamples.joined(samples, samples).select(np.array([6, 1])).labels[:, 1].tolist() == [1, -1]


def test_other_labels_of_a_further_task_are_other_data(tmp_path: Path) -> None:
    config = write(tmp_path)
    plain, labelled = catalogue(config.model_copy(update={"tasks": []})), catalogue(config)
    changed = labelled.set_column(
        labelled.column_names.index("tasks"), "tasks", pa.array([["soft"]] * 6, pa.list_(pa.string()))
    )
    assert len({data_fingerprint(table) for table in (plain, labelled, changed)}) == 3
