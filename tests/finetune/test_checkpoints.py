import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from finetune_examples import a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.errors import StorageError, TrainingError
from orchestrator.finetune.checkpoints import TrainingState, load_state, save_state
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.loop import fine_tune


@pytest.fixture(params=["sgd", "adam", "adamw"])
def state(request: pytest.FixtureRequest, tiny_classifier: Callable[..., Classifier]) -> TrainingState:
    states: list[TrainingState] = []
    fine_tune(
        tiny_classifier(),
        a_spec(),
        some_samples(9),
        some_samples(6),
        some_hyperparameters(optimizer=request.param),
        some_settings(),
        on_epoch=lambda end: states.append(end.state),
    )
    return states[-1]


def test_a_state_comes_back_from_disk_as_it_was(state: TrainingState, tmp_path: Path) -> None:
    save_state(state, tmp_path)
    loaded = load_state(tmp_path)
    for field in dataclasses.fields(TrainingState):
        if field.name not in ("suffix", "best_suffix", "steps"):
            assert getattr(loaded, field.name) == getattr(state, field.name)
    for one, other in ((loaded.suffix, state.suffix), (loaded.best_suffix, state.best_suffix)):
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)
    loaded_optimizer, optimizer = loaded.steps["optimizer"], state.steps["optimizer"]
    assert loaded_optimizer["param_groups"] == optimizer["param_groups"]
    torch.testing.assert_close(loaded_optimizer["state"], optimizer["state"], rtol=0, atol=0)


def test_a_state_holds_the_suffix_alone(state: TrainingState) -> None:
    parameters = [name for name in state.suffix if name.endswith("weight")]
    assert len(parameters) == 5  # two convolutions, two BatchNorm layers, the head


def test_a_damaged_or_foreign_file_is_refused(state: TrainingState, tmp_path: Path) -> None:
    save_state(state, tmp_path)
    path = tmp_path / "state.pt"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"garbage", b""):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match="must hold the state of a training"):
            load_state(tmp_path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(TrainingError, match="must hold the state of a training"):
        load_state(tmp_path)


class MakesDirectory:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_a_file_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": MakesDirectory(tmp_path / "made")}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="must hold the state of a training"):
        load_state(tmp_path)
    assert not (tmp_path / "made").exists()


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"state\.pt"):
        load_state(tmp_path)
