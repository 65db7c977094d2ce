from collections.abc import Callable, Mapping

import pytest
import torch
from finetune_examples import a_spec, tiny_backbone
from torch import Tensor

from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.regularization import RegularizerName, penalty, sparsity, start_of
from orchestrator.finetune.weights import load_pretrained

Weights = dict[str, Tensor]

SHAPES = {"wide": (3, 2, 2, 2), "tall": (6, 4), "scale": (5,), "bias": (3,)}
MATRICES = ("wide", "tall")
TOWARDS_THE_START: list[RegularizerName] = ["l2_sp", "cosine", "euclidean"]
ALL: list[RegularizerName] = [*TOWARDS_THE_START, "orthogonal", "l1", "l2"]


def some_weights(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def trainable(weights: Mapping[str, Tensor]) -> Weights:
    return {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}


def gradients(value: Tensor, weights: Weights) -> Weights:
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def as_matrix(tensor: Tensor) -> Tensor:
    return tensor.reshape(tensor.shape[0], -1)


def cosine_by_hand(weights: Weights, start: Weights) -> Tensor:
    distances = []
    for name in MATRICES:
        a, b = weights[name].flatten(), start[name].flatten()
        distances.append(1 - (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt()))
    return sum(distances, torch.zeros(())) / len(MATRICES)


def orthogonal_by_hand(weights: Weights, start: Weights) -> Tensor:
    parts = [((as_matrix(weights[name]).T @ as_matrix(start[name])) ** 2).sum() for name in MATRICES]
    return sum(parts, torch.zeros(())) / len(MATRICES)


def over_all(term: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Weights, Weights], Tensor]:
    return lambda weights, start: sum((term(weights[name], start[name]) for name in SHAPES), torch.zeros(()))


BY_HAND: dict[RegularizerName, Callable[[Weights, Weights], Tensor]] = {
    "l2_sp": over_all(lambda weight, start: ((weight - start) ** 2).sum() / 2),
    "l2": over_all(lambda weight, start: (weight**2).sum() / 2),
    "l1": over_all(lambda weight, start: weight.abs().sum()),
    "euclidean": over_all(lambda weight, start: ((weight - start) ** 2).sum().sqrt() / len(SHAPES)),
    "cosine": cosine_by_hand,
    "orthogonal": orthogonal_by_hand,
}


@pytest.mark.parametrize("name", ALL)
def test_value_and_gradient_are_those_of_the_formula(name: RegularizerName) -> None:
    weights, start = trainable(some_weights(1)), some_weights(2)
    ours, theirs = penalty(name, weights, start), BY_HAND[name](weights, start)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    found, expected = gradients(ours, weights), gradients(theirs, weights)
    for key in SHAPES:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_is_that_of_finite_differences(name: RegularizerName) -> None:
    weights, start = trainable(some_weights(1)), some_weights(2)

    def of_tensors(*tensors: Tensor) -> Tensor:
        return penalty(name, dict(zip(SHAPES, tensors, strict=True)), start)

    assert torch.autograd.gradcheck(of_tensors, tuple(weights.values()))


@pytest.mark.parametrize("name", TOWARDS_THE_START)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_pulls_weights_that_are_where_they_started(name: RegularizerName, dtype: torch.dtype) -> None:
    start = {key: tensor.to(dtype) for key, tensor in some_weights(1).items()}
    weights = trainable(start)
    value = penalty(name, weights, start)
    assert value.dtype == dtype and value.shape == ()
    rounding = 8 * torch.finfo(dtype).eps if name == "cosine" else 0
    assert abs(float(value.detach())) <= rounding
    assert all(gradient.abs().max() <= rounding for gradient in gradients(value, weights).values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("zero", ["weights", "start", "both"])
def test_layers_of_zeros_give_finite_values_and_gradients(name: RegularizerName, zero: str) -> None:
    zeros = {key: torch.zeros_like(tensor) for key, tensor in some_weights(1).items()}
    weights = trainable(zeros if zero in ("weights", "both") else some_weights(1))
    value = penalty(name, weights, zeros if zero in ("start", "both") else some_weights(2))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, weights).values())


def test_a_layer_without_direction_leaves_the_cosine_of_the_others_alone() -> None:
    weights, start = some_weights(1), some_weights(2)
    weights["tall"] = torch.zeros_like(weights["tall"])
    moving = trainable(weights)
    value = penalty("cosine", moving, start)
    wide = 1 - torch.cosine_similarity(weights["wide"].flatten(), start["wide"].flatten(), dim=0)
    torch.testing.assert_close(value, wide / 2, rtol=1e-12, atol=0)
    assert not gradients(value, moving)["tall"].any()


@pytest.mark.parametrize("name", ["cosine", "orthogonal"])
def test_penalties_of_matrices_leave_vectors_out(name: RegularizerName) -> None:
    weights, start = some_weights(1), some_weights(2)
    before = penalty(name, weights, start)
    assert torch.equal(penalty(name, {**weights, "bias": weights["bias"] * 9}, start), before)
    vectors = {key: weights[key] for key in ("scale", "bias")}
    assert penalty(name, vectors, start) == 0


def test_the_orthogonal_penalty_is_zero_for_orthogonal_outputs() -> None:
    start = {"weight": torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])}
    assert penalty("orthogonal", {"weight": torch.tensor([[0.0, 0.0, 0.0], [3.0, 1.0, 2.0]])}, start) == 0
    assert penalty("orthogonal", start, start) == 25


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_plain_penalties_need_no_start(name: RegularizerName) -> None:
    assert penalty(name, some_weights(1), {}) > 0


@pytest.mark.parametrize("name", ["none", *ALL])
def test_without_weights_there_is_no_penalty(name: RegularizerName) -> None:
    assert penalty(name, {}, {}) == 0


def test_none_is_zero_whatever_the_weights() -> None:
    assert penalty("none", some_weights(1), some_weights(2)) == 0


def test_the_start_is_copied_to_another_device_once_for_all_trainings() -> None:
    source, classifier = load_pretrained("none", a_spec(), seed=0)[0], new_classifier(tiny_backbone(), 3, seed=0)
    suffixes = [freeze(classifier, depth)[1] for depth in (1, 2)]
    one, other = (start_of(suffix, source, "meta") for suffix in suffixes)
    assert set(one) == {name for name, _ in suffixes[0].named_parameters()}
    assert one["1.0.weight"].device.type == "meta"
    # The last stage is the second after one that is frozen, and the first after two.
    assert one["1.0.weight"] is other["0.0.weight"]


def test_on_the_sources_own_device_nothing_is_copied() -> None:
    source, classifier = load_pretrained("none", a_spec(), seed=0)[0], new_classifier(tiny_backbone(), 3, seed=0)
    start = start_of(freeze(classifier, 1)[1], source, "cpu")
    known = dict(source.stages[1].named_parameters())
    assert start["0.0.weight"].data_ptr() == known["0.weight"].data_ptr()
    assert not start["0.0.weight"].requires_grad


def test_sparsity_is_the_share_of_weights_up_to_the_threshold() -> None:
    weights = {"first": torch.tensor([0.0, -0.1, 0.2]), "second": torch.tensor([[1e-3]])}
    assert sparsity(weights) == 0.25
    assert sparsity(weights, 0.1) == 0.75
    assert sparsity({}) == 0.0
