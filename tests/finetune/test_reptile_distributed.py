"""Two real ranks over gloo learn what one process learns: the tasks of a step are dealt over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reptile_examples import QUICK, a_backbone, train
from two_ranks import meeting, run_two_ranks

TIMEOUT_S = 150
# One rank has two tasks of each step, and the other one.
ODD = QUICK.model_copy(update={"tasks_per_step": 3})
# The second rank has none.
SINGLE = QUICK.model_copy(update={"tasks_per_step": 1, "episodes": 1})


def outcome(*, resumes: bool = False) -> dict[str, Any]:
    found, backbone, states = train(config=ODD)
    single, other, _ = train(config=SINGLE)
    if resumes:
        _, backbone, _ = train(a_backbone(seed=9), ODD, resume=states[1])
    return {
        "history": [point.model_dump() for point in (*found.history, *single.history)],
        "tensors": [*backbone.state_dict().values(), *other.state_dict().values()],
    }


def run_rank(rank: int, directory: str) -> None:
    with meeting(rank, directory, timeout_s=TIMEOUT_S):
        torch.save({"whole": outcome(), "resumed": outcome(resumes=True)}, Path(directory) / f"{rank}.pt")


def test_two_ranks_are_one_process_also_when_they_go_on(tmp_path: Path) -> None:
    run_two_ranks(run_rank, tmp_path, timeout_s=TIMEOUT_S)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = outcome()
    for key in ("whole", "resumed"):
        assert one[key]["history"] == other[key]["history"]
        for mine, theirs, single in zip(one[key]["tensors"], other[key]["tensors"], alone["tensors"], strict=True):
            assert torch.equal(mine, theirs)
            torch.testing.assert_close(mine, single, atol=1e-6, rtol=1e-5)
        for mine, single in zip(one[key]["history"], alone["history"], strict=True):
            assert mine == pytest.approx(single, abs=1e-6)
