"""`ray job submit` of jobs/run.py to a real head node with a token, and the signals that stop a run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from tiny_experiments import experiment_dict

from orchestrator.records import Report

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a head node with token authentication; give the environment of a shell that may submit to it."""
    home = tmp_path_factory.mktemp("home")
    dashboard, agent = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "RAY_AUTH_MODE": "token",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    _call([RAY, "get-auth-token", "--generate"], environment)
    # A short path: the sockets below it may not be longer than 107 bytes.
    temporary = f"/tmp/ray-{dashboard}"
    start = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}", f"--temp-dir={temporary}"]
    raylet = subprocess.Popen(
        # Jobs go through the node's agent, and its default port belongs to the session's cluster.
        [*start, f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield {**environment, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        # Asked to end, it waits half a minute for its own children.
        os.killpg(raylet.pid, signal.SIGKILL)
        raylet.wait(timeout=60)


def _call(command: list[str], environment: dict[str, str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def _submit(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Submit, trying again while the head's job server comes up."""
    for _ in range(30):
        finished = _call([RAY, "job", "submit", "--working-dir", ".", "--", *arguments], environment, timeout=400)
        said = finished.stdout + finished.stderr
        if "Failed to connect" not in said and "No available agent" not in said:
            return finished
        time.sleep(1)
    raise TimeoutError(f"no job server came up: {finished.stdout}{finished.stderr}")


def _write_experiment(directory: Path, data: Path, **sections: object) -> Path:
    content = experiment_dict(data, directory / "runs", data={"max_bad_fraction": 0.05}, **sections)
    experiment = directory / "tiny.yaml"
    experiment.write_text(yaml.safe_dump(content))
    return experiment


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_submitted_job_runs_the_whole_way_and_leaves_its_report(
    head: dict[str, str], tiny_data: Path, tmp_path: Path
) -> None:
    experiment = _write_experiment(tmp_path, tiny_data, search={"num_samples": 1}, grouping={"num_groups": 1})
    finished = _submit(["python", "jobs/run.py", str(experiment)], head)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "succeeded" in finished.stdout
    report = Report.from_json((tmp_path / "runs/tiny/report.json").read_bytes(), source="report.json")
    assert report.evaluations[0].accuracy is not None


@pytest.mark.timeout(120)
def test_a_submission_without_the_token_is_refused(head: dict[str, str], tmp_path: Path) -> None:
    stranger = {**head, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    finished = _submit(["python", "jobs/run.py", "--help"], stranger)
    assert finished.returncode != 0
    assert "auth" in (finished.stdout + finished.stderr).lower()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_ends_soon_and_says_that_it_can_go_on(
    number: signal.Signals, tiny_data: Path, tmp_path: Path
) -> None:
    endless = {"num_samples": 1, "space": {"freeze_depth": [0], "epochs": [5000], "learning_rate": [0.001]}}
    experiment = _write_experiment(tmp_path, tiny_data, search=endless)
    process = subprocess.Popen(
        [sys.executable, "jobs/run.py", str(experiment)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "RAY_ADDRESS": "local"},
        # What a shell runs in the background ignores interrupts, and so would its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "group: done" in line:
            # The search begins now: its trials would last for hours.
            time.sleep(8)
            process.send_signal(number)
    assert process.wait(timeout=120) == 130, "".join(lines)
    assert "the same command goes on from there" in "".join(lines)
    assert (tmp_path / "runs/tiny/groups.json").exists()
    assert not (tmp_path / "runs/tiny/.owner.json").exists()
