import torch
from finetune_examples import a_spec, tiny_backbone
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.finetune.adversarial import adversarial_images

SPEC = a_spec()
MEAN, STD = (torch.tensor(values).reshape(-1, 1, 1) for values in (SPEC.mean, SPEC.std))
TARGETS = torch.tensor([0, 1, 2, 0])
ROUNDING = 1e-6


def some_pixels() -> Tensor:
    """Pixels [4, 3, 16, 16] in [0, 1], some of them at the ends."""
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels[0, :, :4] = 0.0
    pixels[1, :, :4] = 1.0
    return pixels


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - MEAN) / STD


def a_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(tiny_backbone(), nn.Linear(16, 3)).eval()


def attack(model: nn.Module, images: Tensor, epsilon: float = 0.1) -> Tensor:
    return adversarial_images(model, cross_entropy, images, TARGETS, epsilon=epsilon, mean=SPEC.mean, std=SPEC.std)


def test_the_loss_rises() -> None:
    model, images = a_model(), normalised(some_pixels())
    with torch.no_grad():
        before, after = (cross_entropy(model(shown), TARGETS) for shown in (images, attack(model, images, 0.05)))
    assert after > before + 1e-3


def test_pixels_move_by_epsilon_and_stay_in_range() -> None:
    pixels = some_pixels()
    moved = attack(a_model(), normalised(pixels)) * STD + MEAN
    assert moved.min() >= -ROUNDING and moved.max() <= 1 + ROUNDING
    distance = (moved - pixels).abs()
    assert distance.max() <= 0.1 + ROUNDING
    inside = distance[(pixels > 0.1) & (pixels < 0.9)]
    # A pixel behind nothing but inactive units has no gradient.
    assert ((inside - 0.1).abs() < 1e-5).float().mean() > 0.99


def test_it_follows_the_sign_of_the_gradient_of_a_linear_model() -> None:
    weight = torch.randn(3, 3 * 16 * 16, generator=torch.Generator().manual_seed(1))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return logits.gather(1, targets[:, None]).sum()

    images = normalised(torch.full((4, 3, 16, 16), 0.5))
    moved = adversarial_images(
        lambda shown: shown.flatten(1) @ weight.T, loss, images, TARGETS, epsilon=0.1, mean=SPEC.mean, std=SPEC.std
    )
    expected = images + 0.1 * weight[TARGETS].reshape(4, 3, 16, 16).sign() / STD
    torch.testing.assert_close(moved, expected)


def test_model_gradients_and_images_stay_as_they_are() -> None:
    model, images = a_model(), normalised(some_pixels())
    cross_entropy(model(images), TARGETS).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = images.clone()
    assert not attack(model, images).requires_grad
    assert all(
        torch.equal(parameter.grad, kept)
        for parameter, kept in zip(model.parameters(), gradients, strict=True)
        if parameter.grad is not None
    )
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(images, before) and not images.requires_grad


def test_a_frozen_model_and_a_caller_without_gradients_get_them_too() -> None:
    model, images = a_model(), normalised(some_pixels())
    expected = attack(model, images)
    model.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(attack(model, images), expected)


def test_no_epsilon_changes_nothing() -> None:
    images = normalised(some_pixels())
    torch.testing.assert_close(attack(a_model(), images, 0.0), images)
