"""Two real ranks over gloo pretrain what one process pretrains: BatchNorm sees the whole global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_examples import a_spec, some_samples, some_settings
from torch import nn
from two_ranks import meeting, run_two_ranks

from orchestrator.config import SimSiamConfig
from orchestrator.errors import TrainingError
from orchestrator.finetune.shared_batch_norm import SharedBatchNorm, restore_batch_norms, share_batch_norms
from orchestrator.finetune.simsiam import new_simsiam
from orchestrator.finetune.simsiam_checkpoints import SimSiamState
from orchestrator.finetune.simsiam_training import train_simsiam
from orchestrator.finetune.weights import load_pretrained

TIMEOUT_S = 150
# The last batch has seven images: one rank has four of them and the other three.
CONFIG = SimSiamConfig(epochs=3, batch_size=8, learning_rate=1.0, width=16)
NUM_SAMPLES = 31


def train(*, resume: SimSiamState | None = None, samples: int = NUM_SAMPLES) -> dict[str, Any]:
    model = new_simsiam(load_pretrained("none", a_spec(), seed=0)[0], CONFIG, seed=0)
    states: list[SimSiamState] = []
    found = train_simsiam(
        model,
        a_spec(),
        some_samples(samples),
        CONFIG,
        some_settings(),
        on_epoch=lambda end: states.append(end.take_state()),
        resume=resume,
    )
    history = [(metrics.loss, metrics.spread) for metrics in found.history]
    return {"history": history, "tensors": model.state_dict(), "first": states[0] if resume is None else None}


def run_rank(rank: int, directory: str) -> None:
    with meeting(rank, directory, timeout_s=TIMEOUT_S):
        whole = train()
        resumed = train(resume=whole.pop("first"))
        try:
            train(samples=3)
            error = ""
        except TrainingError as refused:
            error = str(refused)
        resumed.pop("first")
        torch.save({"whole": whole, "resumed": resumed, "error": error}, Path(directory) / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("ranks")
    run_two_ranks(run_rank, directory, timeout_s=TIMEOUT_S)
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_ranks_are_one_process_with_the_same_global_batches(ranks: list[dict[str, Any]]) -> None:
    alone = train()
    for found in ranks:
        for one, other in zip(found["whole"]["history"], alone["history"], strict=True):
            assert one == pytest.approx(other, abs=1e-4)
        for name, tensor in found["whole"]["tensors"].items():
            torch.testing.assert_close(tensor, alone["tensors"][name], atol=1e-3, rtol=1e-3)


def test_ranks_agree_to_the_bit_and_go_on_as_if_they_had_not_been_killed(ranks: list[dict[str, Any]]) -> None:
    one, other = ranks
    assert one["whole"]["history"] == other["whole"]["history"]
    for name, tensor in one["whole"]["tensors"].items():
        assert torch.equal(tensor, other["whole"]["tensors"][name])
        torch.testing.assert_close(tensor, one["resumed"]["tensors"][name], atol=1e-6, rtol=0)


def test_every_rank_must_have_images_to_take_statistics_of(ranks: list[dict[str, Any]]) -> None:
    assert all("must be at least 4 for BatchNorm on 2 workers, got 3" in found["error"] for found in ranks)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(5), nn.BatchNorm1d(5), nn.BatchNorm2d(5, affine=False, momentum=None)]
)
def test_alone_a_shared_layer_is_the_plain_one(layer: nn.Module) -> None:
    inputs = torch.randn(6, 5, 3, 3) if isinstance(layer, nn.BatchNorm2d) else torch.randn(6, 5)
    plain = nn.Sequential(layer)
    shared = nn.Sequential(type(layer)(5, affine=layer.affine, momentum=layer.momentum))
    share_batch_norms(shared)
    assert isinstance(shared[0], SharedBatchNorm) and list(shared.state_dict()) == list(plain.state_dict())
    for _ in range(2):
        torch.testing.assert_close(shared.train()(inputs), plain.train()(inputs), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(shared.eval()(inputs), plain.eval()(inputs), atol=1e-5, rtol=1e-5)
    assert shared[0].num_batches_tracked == 2
    restore_batch_norms(shared)
    assert type(shared[0]) is type(layer)
    torch.testing.assert_close(shared.eval()(inputs), plain.eval()(inputs), atol=1e-5, rtol=1e-5)


def test_blank_inputs_are_normalised_and_not_counted() -> None:
    inputs = torch.randn(6, 5)
    shared = nn.Sequential(nn.BatchNorm1d(5))
    [layer] = share_batch_norms(shared)
    expected = shared(inputs[2:])
    layer.num_blank = 2
    torch.testing.assert_close(shared(inputs)[2:], expected)
