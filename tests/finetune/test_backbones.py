import pickle

import pytest
import torch
from finetune_examples import TINY, tiny_backbone
from torch import nn

from orchestrator.config import BackboneConfig
from orchestrator.errors import BackboneError
from orchestrator.finetune.backbones import Backbone, create_backbone, resolve_spec
from orchestrator.finetune.randomness import seeded


def no_backbone() -> nn.Module:
    return nn.Identity()


def wrong_width() -> Backbone:
    return Backbone(tiny_backbone().stages, feature_dim=99, name="wrong")


def tensors_outside() -> Backbone:
    backbone = tiny_backbone()
    backbone.extra = nn.Linear(1, 1)
    return backbone


def test_a_function_of_ones_own_gives_the_backbone() -> None:
    backbone = create_backbone(TINY, {"width": 4}, 16)
    assert backbone.num_stages == 3
    assert backbone(torch.zeros(2, 3, 16, 16)).shape == (2, 8)


def test_keyword_arguments_reach_torchvision() -> None:
    narrow = create_backbone("mobilenet_v2", {"width_mult": 0.35}, 96)
    assert narrow.stages[0].get_parameter("features_0.0.weight").shape[0] == 16


def test_the_same_seed_gives_the_same_backbone() -> None:
    with seeded(5):
        one = create_backbone("mobilenet_v3_small", {}, 32)
    with seeded(5):
        other = create_backbone("mobilenet_v3_small", {}, 32)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "kwargs", "image_size", "words"),
    [
        ("resnet19", {}, 32, "got resnet19. Did you mean resnet18?"),
        ("vgg11", {}, 32, "families resnet, resnext"),
        ("mobilenet_v2", {"width": 1.0}, 32, "got width. Did you mean width_mult?"),
        ("mobilenet_v2", {"width_mult": "wide"}, 32, "'width_mult': 'wide'"),
        ("convnext_tiny", {"unheard_of": 1}, 32, "got unheard_of"),
        ("resnet18", {"weights": "DEFAULT"}, 32, "got weights"),
        ("vit_b_32", {"image_size": 64}, 64, "got image_size"),
        ("vit_b_32", {}, 40, "got 40. Use a multiple of 32."),
        ("convnext_tiny", {}, 8, "image_size must be large enough for convnext_tiny, got 8"),
        ("no_such_package:function", {}, 32, "No module named"),
        ("finetune_examples:no_such_function", {}, 32, "no_such_function"),
        (TINY, {"depth": 3}, 32, "unexpected keyword argument 'depth'"),
        ("test_backbones:no_backbone", {}, 32, "must return a Backbone, got Identity"),
        ("test_backbones:wrong_width", {}, 32, r"into \[2, 99\], got \[2, 16\]"),
        ("test_backbones:tensors_outside", {}, 32, "got extra.weight"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(name: str, kwargs: dict[str, object], image_size: int, words: str) -> None:
    with pytest.raises(BackboneError, match=words) as caught:
        create_backbone(name, kwargs, image_size)
    assert caught.value.remedy
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_normalisation_is_that_of_the_torchvision_weights() -> None:
    assert resolve_spec(BackboneConfig(name="efficientnet_v2_l")).mean == (0.5, 0.5, 0.5)
    assert resolve_spec(BackboneConfig(name="resnet18", weights="weights.pt")).std == (0.229, 0.224, 0.225)


def test_normalisation_of_the_experiment_file_comes_first() -> None:
    spec = resolve_spec(BackboneConfig(name="resnet18", mean=(0.1, 0.2, 0.3)))
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.229, 0.224, 0.225))


def test_normalisation_of_a_function_of_ones_own_is_imagenets() -> None:
    assert resolve_spec(BackboneConfig(name=TINY)).mean == (0.485, 0.456, 0.406)


def test_an_unknown_name_has_no_spec() -> None:
    with pytest.raises(BackboneError, match="Did you mean resnet18"):
        resolve_spec(BackboneConfig(name="resnet19"))
