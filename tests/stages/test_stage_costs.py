"""What stages cost adds up over the sessions of one result, and over no others: no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import write_parquet_shards
from tiny_experiments import SUBSETS, experiment_dict

from orchestrator.errors import RecordError
from orchestrator.experiment_file import validate_experiment
from orchestrator.pipeline import Pipeline
from orchestrator.records import Costs, StageCost
from orchestrator.runs import RunDirectory
from orchestrator.stages.inputs import RunInputs
from orchestrator.stages.stage_costs import add_session, result_of


def a_session(seconds: float, result: str = "a", stage: str = "pretrain", **changes: object) -> StageCost:
    return StageCost.model_validate({"stage": stage, "seconds": seconds, "result": result, **changes})


def costs_of(*sessions: tuple[StageCost, bool]) -> Costs:
    costs = Costs()
    for session, is_finished in sessions:
        costs = add_session(costs, session, is_finished=is_finished)
    return costs


def test_interrupted_sessions_count_once_their_result_is_finished() -> None:
    costs = costs_of((a_session(35.0), False), (a_session(20.0), False))
    assert costs.stages == [] and costs.unfinished == [a_session(55.0)]
    costs = add_session(costs, a_session(62.3, cpus=4, driver_bytes=7), is_finished=True)
    assert costs.unfinished == [] and costs.stages == [a_session(35.0 + 20.0 + 62.3, cpus=4, driver_bytes=7)]


def test_later_sessions_of_a_finished_result_are_added_to_it() -> None:
    first = a_session(10.0, stage="search", trials=5, images=30, driver_bytes=9)
    costs = costs_of((first, True), (a_session(4.0, stage="search", trials=2, driver_bytes=3), True))
    assert costs.stages == [a_session(14.0, stage="search", trials=7, images=30, driver_bytes=9)]


def test_another_result_costs_what_was_spent_on_it_alone() -> None:
    costs = costs_of((a_session(35.0), False), (a_session(10.0, "b"), True))
    assert costs.stages == [a_session(10.0, "b")] and costs.unfinished == []


def test_a_result_that_was_not_finished_leaves_the_cost_of_the_finished_one() -> None:
    costs = costs_of((a_session(35.0), True), (a_session(5.0, "b"), False))
    assert costs.stages == [a_session(35.0)] and costs.unfinished == [a_session(5.0, "b")]


def test_sessions_of_no_known_result_and_of_other_stages_stay_apart() -> None:
    costs = costs_of((a_session(3.0, "", "report"), True), (a_session(2.0, "", "report"), True), (a_session(9.0), True))
    assert costs.stages == [a_session(2.0, "", "report"), a_session(9.0)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet_shards(tmp_path_factory.mktemp("costs") / "data", subsets=SUBSETS, num_shards=1)


def result(data: Path, runs: Path, stage: str, **sections: object) -> str:
    config = validate_experiment(experiment_dict(data, runs, **sections))
    return result_of(stage, RunInputs(config, RunDirectory.of(config), say=lambda line: None))


def test_a_result_changes_with_what_it_is_made_from_and_with_nothing_else(data: Path, tmp_path: Path) -> None:
    for stage, key in (("pretrain", {"backbone": {"kwargs": {"width_mult": 0.5}}}), ("catalogue", {"seed": 3})):
        before = result(data, tmp_path, stage)
        assert before and before == result(
            data, tmp_path, stage, search={"num_samples": 5}, evaluate={"explanations": 0}
        )
        assert before != result(data, tmp_path, stage, **key)
    assert result(data, tmp_path, "report") == ""
    with pytest.raises(RecordError):
        result(data, tmp_path, "train")


def test_an_interrupted_session_leaves_what_it_cost(data: Path, tmp_path: Path) -> None:
    def say(line: str) -> None:
        if "reading" in line:
            raise KeyboardInterrupt

    config = validate_experiment(experiment_dict(data, tmp_path))
    directory = RunDirectory.of(config)
    for _ in range(2):
        before = directory.find("costs.json", Costs, "costs") or Costs()
        with pytest.raises(KeyboardInterrupt):
            Pipeline(config, say=say).run(["catalogue"])
        costs = directory.find("costs.json", Costs, "costs")
        assert costs is not None and costs.stages == []
        (cost,) = costs.unfinished
        assert cost.stage == "catalogue" and cost.seconds > sum(cost.seconds for cost in before.unfinished)


def test_an_error_before_anything_is_known_of_a_result_is_told_as_it_is(data: Path, tmp_path: Path) -> None:
    config = validate_experiment(experiment_dict(data, tmp_path))
    with pytest.raises(RecordError, match="orchestrator"):
        Pipeline(config, say=lambda line: None).run(["train"])
    assert RunDirectory.of(config).find("costs.json", Costs, "costs") is None
