import ast
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config import DEMO_URI, SOURCE_URI, ExperimentConfig
from orchestrator.experiment_file import dump_experiment, load_experiment, parse_yaml

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))
EXPERIMENTS = sorted((ROOT / "jobs" / "experiments").glob("*.yaml"))


def experiment(name: str, *overrides: str) -> ExperimentConfig:
    return load_experiment(ROOT / "jobs" / "experiments" / f"{name}.yaml", overrides)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_file_is_valid_and_written_back_equal(path: Path) -> None:
    config = load_experiment(path)
    assert ExperimentConfig.model_validate(parse_yaml(dump_experiment(config), source="test")) == config
    assert path.stem in ("demo", "pacs", "cluster-s3")


def test_the_demo_transfers_from_rendered_to_handwritten_digits() -> None:
    config = experiment("demo")
    assert config.data.uri == DEMO_URI
    assert config.backbone.weights == "pretrain"
    assert config.pretrain is not None and config.pretrain.data.uri == SOURCE_URI


def test_the_data_and_weights_of_pacs_can_be_named_on_the_command_line() -> None:
    config = experiment("pacs", "data.uri=/data/pacs", "backbone.weights=/data/weights.pt")
    assert (config.data.uri, config.backbone.weights) == ("/data/pacs", "/data/weights.pt")
    assert config.backbone.kwargs == {"width_mult": 0.35}


def test_the_cluster_experiment_uses_the_gpus_that_the_launcher_starts() -> None:
    config = experiment("cluster-s3")
    launcher = parse_yaml((ROOT / "cluster.yaml").read_text(encoding="utf-8"), source="cluster.yaml")
    gpus = launcher["max_workers"] * launcher["available_node_types"]["worker"]["resources"]["GPU"]
    assert config.train.num_workers == config.search.max_concurrent_trials == gpus == 16
    assert config.storage_path.startswith("s3://") and config.data.uri.startswith("s3://")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short_shows_its_submission_and_shadows_no_module(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    documentation = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) < 40
    assert f"ray job submit --working-dir . -- python jobs/{path.name} " in documentation
    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_finds_the_package_beside_it_from_any_directory(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "--set" in done.stdout or "--output" in done.stdout
