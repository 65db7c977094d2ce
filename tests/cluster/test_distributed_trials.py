"""Trials of several workers: what they find is what one process finds, and what they held is free again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from distributed_search import HEADS, RULE, a_workbench, an_engine, some_samples
from ray.cluster_utils import Cluster

from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.tuning import TuningPlan, run_search
from orchestrator.errors import ResourceError
from orchestrator.records import Trial

ROOT = Path(__file__).parents[2]
FREE_WITHIN_S = 30


@pytest.fixture(scope="module")
def on_three_raylets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Run the search in a process and a cluster of its own, beside which the session's is left alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # A short path: the sockets below it may not be longer than 107 bytes.
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:
        finished = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "distributed_search.py"), str(tmp_path_factory.mktemp("run"))],
            env={**environment, "RAY_TMPDIR": temporary, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/tests/finetune"},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    yield json.loads(finished.stdout.splitlines()[-1])


def trials_of(facts: dict[str, Any]) -> list[Trial]:
    return [Trial.model_validate(trial) for trial in facts["trials"]]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_trial_of_two_ranks_leaves_nothing_behind(on_three_raylets: dict[str, Any]) -> None:
    stopped = trials_of(on_three_raylets)[-1]
    assert stopped.status == "stopped"
    assert 1 <= len(stopped.history) < stopped.hyperparameters.epochs / 2
    # Three trials of two ranks each were there at all.
    assert on_three_raylets["left"] == {"held": [], "num_workers": 6}
    assert on_three_raylets["free_after_s"] < FREE_WITHIN_S


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trial_of_two_ranks_finds_what_one_process_finds(on_three_raylets: dict[str, Any]) -> None:
    found = trials_of(on_three_raylets)[-2]
    alone = Trial.model_validate(on_three_raylets["one_process"])
    assert found.status == alone.status == "complete"
    assert found.hyperparameters == alone.hyperparameters
    assert len(found.history) == len(alone.history) == alone.hyperparameters.epochs
    for epoch, other in zip(found.history, alone.history, strict=True):
        assert epoch.train_loss == pytest.approx(other.train_loss, abs=1e-4)
        assert epoch.val_loss == pytest.approx(other.val_loss, abs=1e-4)
        assert epoch.val_accuracy == other.val_accuracy
    assert found.value == pytest.approx(alone.value, abs=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_error_of_the_ranks_is_a_recorded_result(on_three_raylets: dict[str, Any]) -> None:
    failed = trials_of(on_three_raylets)[0]
    assert failed.status == "failed"
    assert (failed.error or "").startswith("DivergedError: the loss must stay finite")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_heads_train_together_in_one_process(on_three_raylets: dict[str, Any]) -> None:
    heads = trials_of(on_three_raylets)[1:3]
    assert [trial.hyperparameters for trial in heads] == HEADS
    assert [trial.status for trial in heads] == ["complete", "complete"]


@pytest.mark.parametrize(
    ("cpus", "message"),
    [(2.0, "a trial of 2 workers must fit the cluster"), (1.0, "must have a cluster whose dashboard answers")],
)
def test_what_could_not_run_or_be_stopped_is_refused_before_a_trial_starts(
    cpus: float, message: str, ray_cluster: Cluster, tmp_path: Path
) -> None:
    samples, workbench = some_samples(tmp_path / "pixels"), a_workbench()
    engine = an_engine(tmp_path, samples, [], workbench.backbone.num_stages)
    plan = TuningPlan(
        resources_per_trial={"CPU": cpus},
        max_concurrent_trials=None,
        use_gpu=False,
        stall_timeout_s=30,
        metric="val_loss",
        stopping=RULE,
        num_trials=2,
        num_workers_per_trial=2,
    )
    # The session's cluster has no dashboard.
    with pytest.raises(ResourceError, match=message):
        run_search(
            engine,
            {samples.group: samples},
            workbench,
            plan,
            observe_cluster(elastic=False),
            clock=lambda: 0.0,
            on_finished=lambda assignment, outcomes: None,
        )
    assert engine.running == []
