"""Subsets that arrive after a run fall into its groups, and nothing of the run changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import write_parquet_shards

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.errors import ConfigError, RecordError, StorageError
from orchestrator.pipeline import Pipeline
from orchestrator.records import Assignments, Groups

pytestmark = pytest.mark.usefixtures("ray_cluster")

LATER = {
    "narrow": {"circle": 37, "stripe": 3},
    "wide": {"circle": 12, "stripe": 12, "cross": 12, "noise": 12, "spiral": 12},
    "tiny": {"circle": 2, "stripe": 2},
}


def silent(line: str) -> None:
    pass


def run_to_groups(config: ExperimentConfig) -> Path:
    Pipeline(config, say=silent).run(["pretrain", "catalogue", "profile", "group"])
    return Path(config.storage_path) / config.name


def groups_of(run: Path) -> dict[str, str]:
    groups = Groups.from_json((run / "groups.json").read_bytes(), source="groups.json").groups
    return {name: group.name for group in groups for name in group.subsets}


def contents_of(run: Path) -> dict[str, bytes]:
    """Give every file of a run but what was assigned."""
    files = [path for path in run.rglob("*") if path.is_file() and "assignments" not in path.parts]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_the_runs_own_subsets_come_to_their_own_groups(
    profiled_experiment: Callable[..., ExperimentConfig], tiny_data: Path
) -> None:
    config = profiled_experiment(
        diversity={"measures": ["label_entropy", "feature_diversity"]},
        grouping={"method": "kmeans", "measures": ["label_entropy", "feature_diversity"]},
    )
    run = run_to_groups(config)
    found = Pipeline.of_run(str(run), say=silent).assign(str(tiny_data))
    profile = json.loads((run / "profile.json").read_text())["subsets"]
    assert {subset.subset: subset.group for subset in found.assignments} == groups_of(run)
    for subset, measured in zip(found.assignments, profile, strict=True):
        assert subset.values == {name: measured[name] for name in ("label_entropy", "feature_diversity")}
        assert subset.unknown_classes == []
    assert found.num_quarantined == 2


def test_later_subsets_are_assigned_beside_the_run_and_their_doubts_are_told(
    profiled_experiment: Callable[..., ExperimentConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_to_groups(profiled_experiment())
    # The run's own data may be gone: its records say all that is needed.
    before, groups = contents_of(run), groups_of(run)
    later = write_parquet_shards(tmp_path / "later", subsets=LATER, num_shards=2, seed=5)
    assert main(["assign", str(run), str(later)]) == 0
    shown = capsys.readouterr().out
    (record,) = (run / "assignments").glob("*/assignments.json")
    found = {a.subset: a for a in Assignments.from_json(record.read_bytes(), source="record").assignments}
    assert found["narrow"].group == groups["plain"]
    assert found["wide"].group == groups["full"]
    assert found["wide"].unknown_classes == ["spiral"]
    assert "wide: 1 class unknown to the model of g1: spiral." in shown
    assert found["tiny"].is_small and "are few to measure diversity by" in shown
    assert [a.recipe for a in found.values()] == [a.model for a in found.values()] == [None] * 3
    assert contents_of(run) == before


def test_data_that_was_assigned_before_is_not_read_again(
    profiled_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    run = run_to_groups(profiled_experiment())
    later = write_parquet_shards(tmp_path / "later", subsets=LATER, num_shards=1, seed=5)
    first, second = [], []
    found = Pipeline.of_run(str(run), say=first.append).assign(str(later))
    again = Pipeline.of_run(str(run), say=second.append).assign(str(later))
    assert again == found
    assert [line.split()[1] for line in first if line.startswith("assign:")] == ["reading", "measuring"]
    assert second == []


def test_a_run_that_has_no_groups_names_the_stage_to_run(
    profiled_experiment: Callable[..., ExperimentConfig], tiny_data: Path
) -> None:
    config = profiled_experiment()
    run = Path(config.storage_path) / config.name
    with pytest.raises(RecordError, match=r"groups.json must exist.*orchestrator group"):
        Pipeline.of_run(str(run), say=silent).assign(str(tiny_data))


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"config\.yaml"):
        Pipeline.of_run(str(tmp_path), say=silent)


def test_paths_of_later_data_are_not_looked_for_among_the_runs_images(
    profiled_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    run = run_to_groups(profiled_experiment())
    pipeline = Pipeline.of_run(str(run), say=lambda line: None)
    pipeline.config = pipeline.config.model_copy(
        update={"data": pipeline.config.data.model_copy(update={"image_root": str(tmp_path)})}
    )
    with pytest.raises(ConfigError, match="--image-root"):
        pipeline.assign(str(tmp_path / "later.csv"))
