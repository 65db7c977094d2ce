"""The contract that every backbone family must keep, tested on its smallest member."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from finetune_examples import LABELS, a_spec, some_hyperparameters, some_samples, some_settings
from torch import Tensor, nn

from orchestrator.finetune.backbones import Backbone, create_backbone, cut_backbone
from orchestrator.finetune.classifier import Classifier, preprocess
from orchestrator.finetune.families import build_model, head_of, list_names
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.prefix import from_stored, layouts, prefix_rows
from orchestrator.finetune.randomness import seeded

IMAGE_SIZE = 64
NUM_STAGES = {
    "resnet18": 5,
    "resnext50_32x4d": 5,
    "wide_resnet50_2": 5,
    "mobilenet_v2": 6,
    "mobilenet_v3_small": 6,
    "efficientnet_b0": 6,
    "efficientnet_v2_s": 6,
    "convnext_tiny": 4,
    "regnet_y_400mf": 5,
    "vit_b_32": 4,
    "swin_t": 4,
    "swin_v2_t": 4,
}


@dataclass(frozen=True)
class Pair:
    """A whole model of torchvision, and a backbone made from a copy of it."""

    name: str
    model: nn.Module
    backbone: Backbone


@pytest.fixture(scope="module", params=list(NUM_STAGES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    name = request.param
    with seeded(0):
        model = build_model(name, {}, IMAGE_SIZE).eval()
        perturb(model)
    yield Pair(name, model, cut_backbone(copy.deepcopy(model), name, IMAGE_SIZE))


def perturb(model: nn.Module) -> None:
    """Make every tensor matter to the output, zeros and ones of the initialisation too."""
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.02)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand_like(buffer) * 0.1)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(before[name], tensor)}


def test_the_suffix_on_stored_activations_is_the_whole_model(pair: Pair) -> None:
    spec, settings = a_spec(pair.name, image_size=IMAGE_SIZE), some_settings()
    classifier = Classifier(pair.backbone, nn.Linear(pair.backbone.feature_dim, len(LABELS))).eval()
    pixels = some_samples(3, image_size=IMAGE_SIZE).pixels
    depths = range(1, pair.backbone.num_stages + 1)
    stages = nn.Sequential(*pair.backbone.stages)
    found = layouts(stages, spec, settings, depths)
    with torch.no_grad():
        whole = classifier(preprocess(pixels, spec, "cpu"))
        for dtype in ("fp32", "bf16", "fp16"):
            rows = prefix_rows(stages, pixels, depths, spec, settings, dict.fromkeys(depths, dtype))
            for depth in depths:
                inputs = found[depth].unpack(from_stored(rows[depth], dtype).float())
                outputs = classifier.suffix(depth)(inputs)
                if dtype == "fp32":
                    assert torch.equal(outputs, whole)
                else:
                    assert (outputs - whole).abs().max() <= 0.1 * whole.std()


def test_composed_stages_and_the_head_are_the_model(pair: Pair) -> None:
    images = torch.randn(4, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    _, head = head_of(pair.model)
    with torch.no_grad():
        expected = pair.model(images)
        features = pair.backbone(images)
        assert features.shape == (4, pair.backbone.feature_dim)
        assert torch.equal(head(features), expected)
        for depth in range(pair.backbone.num_stages + 1):
            classifier = Classifier(pair.backbone, head)
            assert torch.equal(classifier.suffix(depth)(classifier.prefix(depth)(images)), expected)


def test_every_tensor_but_the_head_is_in_a_stage(pair: Pair) -> None:
    head, _ = head_of(pair.model)
    outside = sum(not name.startswith(f"{head}.") for name in pair.model.state_dict())
    assert len(pair.backbone.state_dict()) == outside
    assert all(name.startswith("stages.") for name in pair.backbone.state_dict())


def test_stages_are_those_of_the_family_at_any_size(pair: Pair) -> None:
    assert pair.backbone.num_stages == NUM_STAGES[pair.name]
    kinds = [[type(module) for module in stage.modules()] for stage in pair.backbone.stages]
    other = create_backbone(pair.name, {}, 96)
    assert [[type(module) for module in stage.modules()] for stage in other.stages] == kinds


@pytest.mark.parametrize("depth", ["nothing", "one", "all but one", "everything"])
def test_steps_change_the_suffix_alone(pair: Pair, depth: str) -> None:
    deepest = pair.backbone.num_stages
    frozen = {"nothing": 0, "one": 1, "all but one": deepest - 1, "everything": deepest}[depth]
    with seeded(1):
        classifier = Classifier(copy.deepcopy(pair.backbone), nn.Linear(pair.backbone.feature_dim, len(LABELS)))
    before = snapshot(classifier.train())
    fine_tune(
        classifier,
        a_spec(pair.name, image_size=IMAGE_SIZE),
        some_samples(8, image_size=IMAGE_SIZE),
        some_samples(2, image_size=IMAGE_SIZE),
        some_hyperparameters(freeze_depth=frozen, epochs=1, batch_size=4, learning_rate=1e-3),
        some_settings(batch_norm="train"),
    )
    found = changed(before, classifier)
    prefix = {name for name in before if name.startswith(tuple(f"backbone.stages.{i}." for i in range(frozen)))}
    parameters = {name for name, _ in classifier.named_parameters()} - prefix
    statistics = {name for name in before if name.endswith(("running_mean", "running_var"))} - prefix
    assert found & prefix == set()
    assert parameters - found == set()
    assert statistics - found == set()
    trainable = {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}
    assert trainable == parameters
    if depth == "everything":
        assert trainable == {"head.weight", "head.bias"}


def test_frozen_statistics_stay_in_every_stage(pair: Pair) -> None:
    classifier = Classifier(copy.deepcopy(pair.backbone), nn.Linear(pair.backbone.feature_dim, len(LABELS)))
    before = snapshot(classifier.train())
    fine_tune(
        classifier,
        a_spec(pair.name, image_size=IMAGE_SIZE),
        some_samples(4, image_size=IMAGE_SIZE),
        some_samples(2, image_size=IMAGE_SIZE),
        some_hyperparameters(freeze_depth=1, epochs=1, batch_size=4),
        some_settings(batch_norm="frozen"),
    )
    buffers = {name for name, _ in classifier.named_buffers()}
    found = changed(before, classifier)
    assert found & buffers == set()
    assert "head.weight" in found


def test_every_model_of_the_families_is_supported() -> None:
    families = ("resnet", "resnext", "wide_resnet", "mobilenet_v2", "mobilenet_v3", "efficientnet", "convnext")
    families += ("regnet", "vit", "swin")
    assert all(name.startswith(families) for name in list_names())
    assert len(list_names()) == 54


def test_a_vit_is_cut_into_equal_groups_of_blocks() -> None:
    backbone = create_backbone("vit_b_32", {}, 32)
    blocks = [[type(module).__name__ for module in stage.children()].count("EncoderBlock") for stage in backbone.stages]
    assert blocks == [3, 3, 3, 3]


def test_a_mobilenet_is_cut_where_the_resolution_changes() -> None:
    backbone = create_backbone("mobilenet_v2", {"width_mult": 0.25}, 32)
    images, resolutions = torch.zeros(1, 3, 224, 224), []
    with torch.no_grad():
        for stage in backbone.stages:
            images = stage(images)
            resolutions.append(images.shape[2] if images.dim() == 4 else None)
    assert resolutions == [112, 56, 28, 14, 7, None]
    assert [len([name for name in stage._modules if "features" in name]) for stage in backbone.stages] == [
        2, 2, 3, 7, 4, 1,
    ]  # fmt: skip
