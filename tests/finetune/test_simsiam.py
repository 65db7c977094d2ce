"""SimSiam's loss, what stops its collapse and what notices it, its training, and its resume."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_examples import ArraySamples, a_spec, some_samples, some_settings
from torch import Tensor

from orchestrator.config import SimSiamConfig
from orchestrator.errors import CollapsedError, DivergedError, StorageError, TrainingError
from orchestrator.finetune.simsiam import SimSiam, negative_cosine, new_simsiam, spread
from orchestrator.finetune.simsiam_checkpoints import SimSiamState, load_simsiam, save_simsiam
from orchestrator.finetune.simsiam_training import SimSiamEnd, SimSiamResult, train_simsiam
from orchestrator.finetune.weights import load_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = SimSiamConfig(epochs=3, batch_size=16, learning_rate=1.0, width=16)
# So strong that it collapses within a few epochs where the gradient is not stopped.
STRONG = SimSiamConfig(epochs=12, batch_size=16, learning_rate=8.0, weight_decay=1e-2, width=16)


class WithoutStop(SimSiam):
    """SimSiam whose targets are pulled to the predictions as well."""

    def target(self, outputs: Tensor) -> Tensor:
        return outputs


def a_model(kind: type[SimSiam] = SimSiam, *, config: SimSiamConfig = QUICK, seed: int = 0) -> SimSiam:
    model = new_simsiam(load_pretrained("none", a_spec(), seed=seed)[0], config, seed=seed)
    model.__class__ = kind
    return model


def train(
    model: SimSiam,
    config: SimSiamConfig = QUICK,
    *,
    samples: ArraySamples | None = None,
    ends: list[SimSiamEnd] | None = None,
    states: list[SimSiamState] | None = None,
    resume: SimSiamState | None = None,
) -> SimSiamResult:
    def on_epoch(end: SimSiamEnd) -> None:
        if ends is not None:
            ends.append(end)
        if states is not None:
            states.append(end.take_state())

    return train_simsiam(
        model, a_spec(), samples or some_samples(50), config, some_settings(), on_epoch=on_epoch, resume=resume
    )


def test_the_loss_is_the_mean_negative_cosine_of_each_prediction_and_the_other_output() -> None:
    model = a_model().eval()
    one, other = torch.randn(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    losses, outputs = model(one, other)
    z = [model.projector(model.backbone(images)).detach().numpy() for images in (one, other)]
    p = [model.predictor(torch.from_numpy(found)).detach().numpy() for found in z]
    unit = [[row / math.sqrt(float((row**2).sum())) for row in rows] for rows in (*p, *z)]
    expected = [
        -(sum(a * b for a, b in zip(unit[0][i], unit[3][i], strict=True)) / 2)
        - sum(a * b for a, b in zip(unit[1][i], unit[2][i], strict=True)) / 2
        for i in range(5)
    ]
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(outputs.numpy(), z[0], rtol=1e-6)


def test_equal_directions_lose_least_and_opposite_ones_most() -> None:
    rows = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    torch.testing.assert_close(negative_cosine(rows, 2 * rows), torch.tensor([-1.0, -1.0]))
    torch.testing.assert_close(negative_cosine(rows, -rows), torch.tensor([1.0, 1.0]))


@pytest.mark.parametrize(("kind", "is_stopped"), [(SimSiam, True), (WithoutStop, False)])
def test_no_gradient_goes_back_through_the_targets(kind: type[SimSiam], is_stopped: bool) -> None:
    model = a_model(kind).eval()
    one, other = torch.randn(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    losses, _ = model(one, other)
    found = torch.autograd.grad(losses.sum(), list(model.projector.parameters()))
    outputs = [model.projector(model.backbone(images)) for images in (one, other)]
    by_hand = torch.autograd.grad(
        sum(
            (negative_cosine(model.predictor(outputs[i]), outputs[1 - i].detach()).sum() / 2 for i in (0, 1)),
            start=torch.zeros(()),
        ),
        list(model.projector.parameters()),
    )
    is_equal = all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, by_hand, strict=True))
    assert is_equal is is_stopped


def test_the_spread_is_one_for_directions_everywhere_and_none_for_a_single_one() -> None:
    generator = torch.Generator().manual_seed(0)
    assert spread(torch.randn(4000, 32, generator=generator)) == pytest.approx(1, abs=0.03)
    assert spread(torch.ones(50, 32)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(math.sqrt(2) / 2)


def test_widths_follow_the_features_of_the_backbone() -> None:
    backbone, _ = load_pretrained("none", a_spec(width=12), seed=0)
    model = new_simsiam(backbone, SimSiamConfig(), seed=0)
    assert model.projector[0].weight.shape == (24, 24)
    assert [model.predictor[0].weight.shape, model.predictor[3].weight.shape] == [(6, 24), (24, 6)]
    assert len(model.projector) == 8 and model.predictor[3].bias is not None


def test_training_lowers_the_loss_and_keeps_the_outputs_apart() -> None:
    config = SimSiamConfig(epochs=12, batch_size=16, learning_rate=2.0, width=16)
    result = train(a_model(config=config), config, samples=some_samples(96))
    assert [metrics.epoch for metrics in result.history] == list(range(1, 13))
    assert result.history[-1].loss < result.history[0].loss - 0.2
    assert min(metrics.spread for metrics in result.history) > 0.8


def test_without_the_stopped_gradient_outputs_collapse_and_the_training_says_so() -> None:
    samples = some_samples(96)
    result = train(a_model(config=STRONG), STRONG, samples=samples)
    assert min(metrics.spread for metrics in result.history) > 0.4
    with pytest.raises(CollapsedError, match=r"spread must be at least 0.1 of 1, got 0\.0\d+ at epoch"):
        train(a_model(WithoutStop, config=STRONG), STRONG, samples=samples)


def test_only_the_predictor_keeps_its_rate() -> None:
    states: list[SimSiamState] = []
    train(a_model(), states=states)
    falling, kept = states[-1].steps["optimizer"]["param_groups"]
    assert kept["lr"] == pytest.approx(1.0 * 16 / 256)
    assert 0 < falling["lr"] < 0.1 * kept["lr"]
    assert len(kept["params"]) == len(list(a_model().predictor.parameters()))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(optimizer: str, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"optimizer": optimizer, "learning_rate": 0.1})
    states: list[SimSiamState] = []
    whole, resumed = a_model(), a_model(seed=1)
    expected = train(whole, config, states=states)
    save_simsiam(states[0], tmp_path)
    found = train(resumed, config, resume=load_simsiam(tmp_path))
    assert found.history == expected.history
    assert found.seconds > states[0].seconds
    other = resumed.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in whole.state_dict().items())


def test_the_same_seed_gives_the_same_weights_whatever_torch_drew_before() -> None:
    found = []
    for drawn in range(2):
        torch.rand(drawn)
        model = a_model()
        train(model)
        found.append(model.state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_labels_make_no_difference() -> None:
    samples = some_samples(50)
    one, other = a_model(), a_model()
    train(one, samples=samples)
    train(other, samples=dataclasses.replace(samples, labels=samples.labels[::-1].copy()))
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_the_checkpoint_of_another_training_is_refused() -> None:
    states: list[SimSiamState] = []
    train(a_model(), states=states)
    longer = QUICK.model_copy(update={"epochs": 4})
    for config in (longer, QUICK.model_copy(update={"width": 8})):
        with pytest.raises(TrainingError, match=r"same backbone and the same pretrain\.simsiam"):
            train(a_model(config=config), config, resume=states[0])


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        load_simsiam(tmp_path)
    for content in (b"garbage", b""):
        (tmp_path / "simsiam.pt").write_bytes(content)
        with pytest.raises(TrainingError, match="must hold the state of a SimSiam training"):
            load_simsiam(tmp_path)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(TrainingError, match="number of training images must be at least 2"):
        train(a_model(), samples=some_samples(1))
    huge = QUICK.model_copy(update={"learning_rate": 1e30})
    with pytest.raises((DivergedError, CollapsedError)):
        train(a_model(), huge)
