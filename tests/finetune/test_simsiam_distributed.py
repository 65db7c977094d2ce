"""Two real ranks over gloo pretrain what one process pretrains: BatchNorm sees the whole global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_examples import ImageListStream, a_spec, some_samples, some_settings
from torch import nn
from two_ranks import meeting, run_two_ranks

from orchestrator.config import SimSiamConfig
from orchestrator.errors import TrainingError
from orchestrator.finetune.contracts import ImageStream, Samples
from orchestrator.finetune.image_batches import image_batches
from orchestrator.finetune.shared_batch_norm import SharedBatchNorm, restore_batch_norms, share_batch_norms
from orchestrator.finetune.simsiam import new_simsiam
from orchestrator.finetune.simsiam_checkpoints import SimSiamState
from orchestrator.finetune.simsiam_training import train_simsiam
from orchestrator.finetune.weights import load_pretrained

TIMEOUT_S = 150
# The last batch has seven images: one rank has four of them and the other three.
CONFIG = SimSiamConfig(epochs=3, batch_size=8, learning_rate=1.0, width=16)
NUM_SAMPLES = 31
# The second rank runs out two batches before the first one, whose last batch is too small for BatchNorm on two ranks.
RANK_BATCHES = [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14]], [[15, 16, 17, 18], [19]]]
GLOBAL_BATCHES = [[0, 1, 2, 3, 15, 16, 17, 18], [4, 5, 6, 7, 19], [8, 9, 10, 11, 12, 13, 14]]
ONE_RANK_ALONE = [[list(range(8)), list(range(8, 16)), [16]], []]
ALONE = [list(range(8)), list(range(8, 17))]


def a_stream(batches: list[list[int]], *, num_samples: int) -> ImageListStream:
    return ImageListStream(some_samples(num_samples), batches, num_samples)


def train(*, resume: SimSiamState | None = None, images: Samples | ImageStream | None = None) -> dict[str, Any]:
    model = new_simsiam(load_pretrained("none", a_spec(), seed=0)[0], CONFIG, seed=0)
    states: list[SimSiamState] = []
    found = train_simsiam(
        model,
        a_spec(),
        images or some_samples(NUM_SAMPLES),
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
        resumed.pop("first")
        errors = [refused(some_samples(3)), refused(a_stream([[rank]], num_samples=3))]
        lost = refused(a_stream(RANK_BATCHES[rank], num_samples=21))
        found = {"whole": whole, "resumed": resumed, "errors": errors, "lost": lost, "streamed": streamed(rank)}
        torch.save(found, Path(directory) / f"{rank}.pt")


def refused(images: Samples | ImageStream) -> str:
    try:
        train(images=images)
    except TrainingError as error:
        return str(error)
    return ""


def streamed(rank: int) -> dict[str, Any]:
    """Train on a rank's share of streams; give what came of it, and the keys of the images of every global batch."""
    stream, one_sided = a_stream(RANK_BATCHES[rank], num_samples=20), a_stream(ONE_RANK_ALONE[rank], num_samples=17)
    batches = list(image_batches(stream, image_size=16, batch_size=8, epoch=1, settings=some_settings()))
    keys, totals = [batch.keys.tolist() for batch in batches], [batch.total for batch in batches]
    whole = train(images=stream)
    resumed, empty = train(images=stream, resume=whole.pop("first")), train(images=one_sided)
    for found in (resumed, empty):
        found.pop("first")
    return {"whole": whole, "resumed": resumed, "empty": empty, "keys": keys, "totals": totals}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("ranks")
    run_two_ranks(run_rank, directory, timeout_s=TIMEOUT_S)
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_ranks_are_one_process_with_the_same_global_batches(ranks: list[dict[str, Any]]) -> None:
    alone = train()
    for found in ranks:
        assert_nearly_equal(found["whole"], alone)


def assert_nearly_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Hold what two ranks found against one process: sums are rounded otherwise."""
    for one, other in zip(found["history"], expected["history"], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    for name, tensor in found["tensors"].items():
        torch.testing.assert_close(tensor, expected["tensors"][name], atol=1e-3, rtol=1e-3)


def test_ranks_of_unequal_streams_are_one_process_with_the_same_global_batches(ranks: list[dict[str, Any]]) -> None:
    alone = train(images=a_stream(GLOBAL_BATCHES, num_samples=20))
    one_sided = train(images=a_stream(ALONE, num_samples=17))
    for found in ranks:
        assert_nearly_equal(found["streamed"]["whole"], alone)
        assert_nearly_equal(found["streamed"]["empty"], one_sided)


def test_ranks_of_unequal_streams_take_equally_many_steps_over_each_image_once(ranks: list[dict[str, Any]]) -> None:
    keys = [found["streamed"]["keys"] for found in ranks]
    assert [sorted(one + other) for one, other in zip(*keys, strict=True)] == GLOBAL_BATCHES
    assert all(found["streamed"]["totals"] == [8, 5, 7] for found in ranks)


@pytest.mark.parametrize("part", ["held", "streamed"])
def test_ranks_agree_to_the_bit_and_go_on_as_if_they_had_not_been_killed(
    ranks: list[dict[str, Any]], part: str
) -> None:
    one, other = ranks if part == "held" else [found["streamed"] for found in ranks]
    assert one["whole"]["history"] == other["whole"]["history"]
    for name, tensor in one["whole"]["tensors"].items():
        assert torch.equal(tensor, other["whole"]["tensors"][name])
        torch.testing.assert_close(tensor, one["resumed"]["tensors"][name], atol=1e-6, rtol=0)


def test_every_rank_must_have_images_to_take_statistics_of(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert len(found["errors"]) == 2
        assert all("must be at least 4 for BatchNorm on 2 workers, got 3" in error for error in found["errors"])


def test_every_rank_learns_that_an_image_was_lost(ranks: list[dict[str, Any]]) -> None:
    assert all("must bring each of 21 samples once, got 20" in found["lost"] for found in ranks)


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
