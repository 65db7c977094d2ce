import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
TOKEN = "~/.ray/auth_token"


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


def test_ray_accepts_the_launcher_file(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_ray_refuses_the_launcher_file_with_a_misspelt_key(config: dict[str, Any]) -> None:
    config["idle_timeout_minute"] = config.pop("idle_timeout_minutes")
    with pytest.raises(Exception, match="idle_timeout_minute"):
        validate_config(prepare_config(config))


def test_the_head_takes_no_gpu_work_and_workers_are_spot_nodes_from_zero(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    worker = config["available_node_types"]["worker"]
    assert head["resources"]["GPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert worker["resources"]["GPU"] >= 1
    assert (worker["min_workers"], worker["max_workers"]) == (0, config["max_workers"])
    assert config["idle_timeout_minutes"] > 0


def test_every_node_starts_with_token_authentication(config: dict[str, Any]) -> None:
    starts = [
        command
        for section in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[section]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert config["file_mounts"][TOKEN] == TOKEN


def test_the_launcher_file_holds_no_token() -> None:
    assert "RAY_AUTH_TOKEN" not in TEXT
    assert not re.search(r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}", TEXT.replace("ami-00000000000000000", ""))


def test_every_mounted_file_is_in_the_repository(config: dict[str, Any]) -> None:
    mounted = {source for source in config["file_mounts"].values() if source != TOKEN}
    assert [source for source in sorted(mounted) if not (ROOT / source).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_setup_commands_install_the_project_in_a_clean_shell(config: dict[str, Any], tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)
    for target, source in config["file_mounts"].items():
        if source != TOKEN:
            copy_to(ROOT / source, Path(target.replace("~", str(tmp_path), 1)))
    # A login shell sets its own path: the interpreter of these tests stands in for the machine image's.
    (tmp_path / ".bashrc").write_text(f'export PATH="{sys.base_prefix}/bin:$PATH"\n', encoding="utf-8")

    for command in [*config["setup_commands"], *config["head_setup_commands"]]:
        run_as_ray_does(command, environment)
    # A second `ray up` runs them again.
    run_as_ray_does(config["setup_commands"][-1], environment)

    assert run_as_ray_does("echo $RAY_AUTH_MODE", environment).strip() == "token"
    assert (tmp_path / ".bashrc").read_text().count("orchestrator-env") == 1
    for program in ("orchestrator", "ray", "python"):
        found = run_as_ray_does(f"command -v {program}", environment).strip()
        assert found == str(tmp_path / "orchestrator-env" / "bin" / program)
    assert "predict" in run_as_ray_does("orchestrator --help", environment)
    run_as_ray_does("python -c 'import boto3'", environment)


def clean_environment(home: Path) -> dict[str, str]:
    """Give a fresh login's environment, with this machine's way to its package index and uv's cache."""
    cache = subprocess.run(
        [sys.executable, "-m", "uv", "cache", "dir"], capture_output=True, text=True, check=False
    ).stdout.strip()
    network = re.compile(r"(PIP|UV|SSL)_.*|.*_proxy", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if network.fullmatch(name)}
    uv = {"UV_CACHE_DIR": cache} if cache else {}
    return {**kept, **uv, "HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}


def copy_to(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


def run_as_ray_does(command: str, environment: dict[str, str]) -> str:
    """Run a command the way the cluster launcher does over SSH, and give what it printed."""
    shell = ["bash", "--login", "-c", "-i", f"source ~/.bashrc && ({command})"]
    done = subprocess.run(
        shell, env=environment, cwd=environment["HOME"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
