"""Searches of several groups share one Tuner: failures are results, budgets hold, and a killed one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tiny_experiments import experiment_dict

from orchestrator.config import ExperimentConfig
from orchestrator.errors import SearchError
from orchestrator.pipeline import Pipeline
from orchestrator.records import SearchResult

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(400)]

UP_TO_SEARCH = ["pretrain", "catalogue", "profile", "group", "search"]


def searches(config: ExperimentConfig) -> list[SearchResult]:
    directory = Path(config.storage_path) / config.name / "groups"
    return [SearchResult.from_json(path.read_bytes(), source=str(path)) for path in directory.glob("*/search.json")]


def test_a_diverging_trial_is_a_recorded_result_and_the_others_go_on(
    profiled_experiment: Callable[..., ExperimentConfig],
) -> None:
    space = {"freeze_depth": [0], "learning_rate": [1e-3, 1e30], "epochs": [2]}
    config = profiled_experiment(
        search={"num_samples": 4, "space": space}, finetune={"optimizer": "sgd"}, grouping={"num_groups": 1}
    )
    Pipeline(config, say=lambda line: None).run(UP_TO_SEARCH)
    (result,) = searches(config)
    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert failed and all(trial.hyperparameters.learning_rate == 1e30 for trial in failed)
    assert all("DivergedError" in (trial.error or "") for trial in failed)
    assert any(trial.status == "complete" for trial in result.trials)


def test_a_search_without_a_usable_trial_fails_after_recording_them_all(
    profiled_experiment: Callable[..., ExperimentConfig],
) -> None:
    space = {"freeze_depth": [0], "learning_rate": [1e30], "epochs": [1]}
    config = profiled_experiment(search={"num_samples": 2, "space": space}, finetune={"optimizer": "sgd"})
    with pytest.raises(SearchError, match="DivergedError"):
        Pipeline(config, say=lambda line: None).run(UP_TO_SEARCH)
    assert [len(result.trials) for result in searches(config)] == [2, 2]


@pytest.mark.slow
def test_a_spent_time_budget_ends_the_search_and_says_so(profiled_experiment: Callable[..., ExperimentConfig]) -> None:
    space = {"freeze_depth": [0], "learning_rate": [1e-3], "epochs": [1, 4000]}
    config = profiled_experiment(
        search={"num_samples": 50, "space": space, "budget": {"time_budget_s": 45}}, grouping={"num_groups": 1}
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run(UP_TO_SEARCH)
    (result,) = searches(config)
    assert 0 < len(result.trials) < 50
    assert {trial.status for trial in result.trials} <= {"complete", "stopped"}
    assert any("the budget of time was spent" in line for line in lines)


@pytest.mark.slow
def test_a_killed_search_keeps_its_finished_trials_and_runs_those_in_flight_again(
    tiny_data: Path, tmp_path: Path
) -> None:
    search = {"num_samples": 6, "space": {"freeze_depth": [0, 3], "learning_rate": [0.001, 0.01], "epochs": [1, 60]}}
    content = experiment_dict(
        tiny_data, tmp_path / "runs", data={"max_bad_fraction": 0.05}, search=search, grouping={"num_groups": 1}
    )
    experiment = tmp_path / "killed.yaml"
    experiment.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "orchestrator", "run", str(experiment), "--stages", ",".join(UP_TO_SEARCH)]
    # A cluster of its own: the process is killed, and with it everything that it started.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONUNBUFFERED": "1", "RAY_ADDRESS": "local"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stdout is not None
    finished_before = []
    for line in process.stdout:
        if ": trial " in line:
            finished_before.append(line)
        if len(finished_before) == 2:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "interrupted trial(s) will run again" in again.stdout
    (path,) = (tmp_path / "runs/tiny/groups").glob("*/search.json")
    result = SearchResult.from_json(path.read_bytes(), source=str(path))
    # One of six is kept back for the finalists.
    assert len(result.trials) == 5 and len(result.race) <= 1
    assert [trial.origin for trial in result.trials].count("fixed_rule") == 1
    for line in finished_before:
        name = line.split("trial ")[1].split()[0]
        assert name in {trial.trial_id for trial in result.trials}
        assert f"trial {name} " not in again.stdout


@pytest.mark.slow
def test_trials_shorter_than_a_process_takes_to_start_share_few_processes(
    profiled_experiment: Callable[..., ExperimentConfig],
) -> None:
    space = {"freeze_depth": [5], "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "epochs": [1]}
    config = profiled_experiment(
        search={"num_samples": 20, "space": space, "max_concurrent_trials": 2}, grouping={"num_groups": 1}
    )
    with trial_processes() as found:
        Pipeline(config, say=lambda line: None).run(UP_TO_SEARCH)
    (result,) = searches(config)
    assert len(result.trials) == 16
    # Two run at once. Tune starts another where one was wanted before one of the two became free, which is soonest
    # on a machine under load; a process for each trial would be sixteen.
    assert 1 <= len(found) <= 5


@contextmanager
def trial_processes() -> Iterator[set[str]]:
    """Collect the numbers of all processes that hold a trial actor meanwhile."""
    found: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
            found.update(line.split()[0] for line in listed.splitlines() if "ray::ImplicitFunc" in line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
