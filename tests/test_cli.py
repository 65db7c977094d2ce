"""The command line teaches by example, and its exit code tells whether everything was done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import write_parquet_shards
from tiny_experiments import experiment_dict

from orchestrator.cli import main
from orchestrator.pipeline import STAGES


@pytest.mark.parametrize("command", [*STAGES, "run", "predict", "index", "shard", "assign"])
def test_every_commands_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"  orchestrator {command} " in capsys.readouterr().out


def test_the_help_shows_the_whole_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "orchestrator run jobs/experiments/demo.yaml" in shown
    assert "ray job submit" in shown


def test_a_mistake_in_the_experiment_is_one_error_and_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text("name: x\ndata: {uri: images}\nserch: {num_samples: 3}\n")
    assert main(["run", str(experiment)]) == 1
    assert "Did you mean search?" in capsys.readouterr().err


def test_an_unknown_stage_is_refused_with_the_known_ones(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets={"a": {"x": 4}}, num_shards=1)
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(json.dumps(experiment_dict(data, tmp_path)))
    assert main(["run", str(experiment), "--stages", "trian"]) == 1
    assert "stages must be known, got trian" in capsys.readouterr().err


def test_labels_alone_are_profiled_without_any_stage_before(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets={"a": {"x": 4, "y": 4}, "b": {"x": 5}}, num_shards=2)
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(json.dumps(experiment_dict(data, tmp_path / "runs", diversity={"columns": ["id"]})))
    assert main(["profile", str(experiment), "--labels-only"]) == 0
    shown = capsys.readouterr().out
    assert "13 rows of 2 subsets counted" in shown and "0 rows left out" in shown
    assert "0.69" in shown and "2.08" in shown
    assert not (tmp_path / "runs").exists()


def test_a_misused_command_exits_with_the_usage_code() -> None:
    assert main(["run"]) == 2
    shifted = ["predict", "model", "images", "--output", "out", "--label-shift", "em"]
    assert main([*shifted, "--subset-column", "site"]) == 2
    assert main(["nonsense"]) == 2
