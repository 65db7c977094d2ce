"""No wait on Ray lasts for ever, and its error says what was wanted and what is free."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Any

import pytest
import ray

from orchestrator.cluster.watchdog import Watchdog, gather, start_progress
from orchestrator.errors import TrainingError, WaitTimeoutError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_call_that_can_never_be_scheduled_ends_with_the_wanted_and_free_resources() -> None:
    unschedulable = ray.remote(num_cpus=64)(lambda: None)
    watchdog = Watchdog("the impossible task", wanted={"CPU": 64}, stall_timeout_s=2.0)
    with (
        pytest.raises(WaitTimeoutError, match="the impossible task must make progress within 2 s: wanted 64 CPU") as e,
        watchdog,
    ):
        list(gather([unschedulable.remote], progress=start_progress(), watchdog=watchdog))
    assert "free now 4 CPU" in str(e.value)


def test_a_blocking_call_of_the_main_thread_is_interrupted() -> None:
    started = time.monotonic()
    with pytest.raises(WaitTimeoutError), Watchdog("a sleep", wanted={"CPU": 1}, stall_timeout_s=1.0):
        time.sleep(60)
    assert time.monotonic() - started < 10


def test_beats_keep_a_slow_but_living_block_going() -> None:
    with Watchdog("slow work", wanted={"CPU": 1}, stall_timeout_s=1.0) as watchdog:
        for _ in range(6):
            time.sleep(0.4)
            watchdog.beat()


def test_steps_told_by_remote_work_count_as_progress() -> None:
    @ray.remote(num_cpus=0.1)
    class Worker:
        def start(self) -> None:
            pass

        def work(self, progress: Any) -> str:
            for _ in range(12):
                time.sleep(0.5)
                progress.step.remote()
            return "done"

    progress, worker = start_progress(), Worker.remote()
    # What is timed is the work: a process may take seconds to start.
    ray.get([worker.start.remote(), progress.steps.remote()])
    with Watchdog("slow remote work", wanted={"CPU": 0.1}, stall_timeout_s=4.0) as watchdog:
        results = list(gather([lambda: worker.work.remote(progress)], progress=progress, watchdog=watchdog))
    assert results == [(0, "done")]


def test_a_users_own_interruption_stays_what_it_is() -> None:
    with pytest.raises(KeyboardInterrupt), Watchdog("work", wanted={}, stall_timeout_s=60.0):
        raise KeyboardInterrupt


def test_an_error_of_one_call_is_given_beside_the_results_of_the_others() -> None:
    @ray.remote(num_cpus=0.1)
    def work(number: int) -> int:
        if number == 1:
            raise TrainingError("number 1 must not fail")
        return number

    progress = start_progress()
    with Watchdog("three calls", wanted={"CPU": 0.1}, stall_timeout_s=60) as watchdog:
        submissions = [partial(work.remote, number) for number in range(3)]
        results = dict(gather(submissions, progress=progress, watchdog=watchdog, limit=1))
    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], TrainingError)


def test_a_wait_is_bounded_where_ctrl_c_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(WaitTimeoutError), Watchdog("a sleep", wanted={"CPU": 1}, stall_timeout_s=0.5):
            time.sleep(30)
    finally:
        signal.signal(signal.SIGINT, before)
