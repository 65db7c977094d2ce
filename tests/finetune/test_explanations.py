from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from finetune_examples import (
    LABELS,
    ArraySamples,
    a_spec,
    some_hyperparameters,
    some_samples,
    some_settings,
)
from numpy.typing import NDArray
from torch import nn
from torchvision.models import VisionTransformer

from orchestrator.errors import BackboneError
from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities, preprocess
from orchestrator.finetune.explanations import explanation_method, heat_maps, roll_out
from orchestrator.finetune.families import ClassToken, PatchEmbedding
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.randomness import seeded
from orchestrator.records import BackboneSpec

FAMILIES = {
    "resnet18": "grad_cam",
    "mobilenet_v2": "grad_cam",
    "mobilenet_v3_small": "grad_cam",
    "efficientnet_b0": "grad_cam",
    "convnext_tiny": "grad_cam",
    "regnet_y_400mf": "grad_cam",
    "swin_t": "grad_cam",
    "swin_v2_t": "grad_cam",
    "vit_b_32": "attention_rollout",
}
SIZE = 64


@pytest.fixture(scope="module", params=list(FAMILIES))
def classifier(request: pytest.FixtureRequest) -> Iterator[Classifier]:
    with seeded(0):
        backbone = create_backbone(request.param, {}, SIZE)
    yield new_classifier(backbone, len(LABELS), seed=0)


def small_cnn() -> Backbone:
    """Three convolutions, the last map a quarter of the image wide."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    last = nn.Sequential(block(32, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Backbone([block(3, 16, 2), block(16, 32, 2), last], feature_dim=32, name="small_cnn")


def small_vit() -> Backbone:
    """Two layers of a ViT on patches of 4 px."""
    return vit_backbone(
        VisionTransformer(
            image_size=32, patch_size=4, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=2
        )
    )


def vit_backbone(model: VisionTransformer) -> Backbone:
    stages = [
        nn.Sequential(PatchEmbedding(model)),
        nn.Sequential(*model.encoder.layers),
        nn.Sequential(model.encoder.ln, ClassToken()),
    ]
    return Backbone(stages, feature_dim=model.hidden_dim, name="small_vit")


def planted_objects(count: int, *, seed: int, size: int, side: int) -> tuple[ArraySamples, NDArray[np.bool_]]:
    """A bright cross, ring or stripes at a random place on noise, and where it is: booleans [n, size, size]."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(20, 90, size=(count, size, size, 3), dtype=np.uint8)
    places = np.zeros((count, size, size), dtype=bool)
    labels = np.arange(count) % 3
    cross, ring, stripes = np.zeros((side, side), bool), np.ones((side, side), bool), np.zeros((side, side), bool)
    third = side // 3
    cross[third:-third], cross[:, third:-third] = True, True
    ring[third - 1 : 1 - third, third - 1 : 1 - third] = False
    stripes[::3] = True
    for index, label in enumerate(labels):
        top, left = rng.integers(0, size - side, size=2)
        window = np.s_[index, top : top + side, left : left + side]
        pixels[window][(cross, ring, stripes)[label]] = rng.integers(200, 255)
        places[window] = True
    return ArraySamples(pixels, labels.astype(np.int64)), places


def share_on_objects(maps: NDArray[np.float32], places: NDArray[np.bool_]) -> float:
    """Give the mean over images of the share of a map's mass that lies on the object."""
    return float(np.mean([heat[place].sum() / heat.sum() for heat, place in zip(maps, places, strict=True)]))


def modes(classifier: Classifier) -> list[bool]:
    return [module.training for module in classifier.modules()]


def test_every_family_has_maps_of_the_image_size_in_the_unit_range(classifier: Classifier) -> None:
    spec = a_spec(classifier.backbone.name, image_size=SIZE)
    maps = heat_maps(classifier, spec, some_samples(5, image_size=SIZE).pixels, np.array([0, 1, 2, 1, 0]))
    assert explanation_method(classifier.backbone) == FAMILIES[classifier.backbone.name]
    assert maps.shape == (5, SIZE, SIZE) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    highest = maps.max(axis=(1, 2))
    assert set(highest.tolist()) <= {0.0, 1.0} and highest.any()
    # Maps differ by place: none is one value all over.
    assert all(np.ptp(heat) > 0 for heat in maps[highest > 0])


def test_grad_cam_is_that_of_the_last_stage_of_enough_places(classifier: Classifier) -> None:
    if classifier.backbone.name in ("vit_b_32", "convnext_tiny"):
        pytest.skip("it is explained by its attention, or its next stage begins with a norm of as many places")
    spec, pixels = a_spec(classifier.backbone.name, image_size=SIZE), some_samples(3, image_size=SIZE).pixels
    classes = np.array([2, 0, 1])
    # Swin's stages give [n, h, w, c], all others [n, c, h, w].
    height, width, channel = (1, 2, 3) if "swin" in classifier.backbone.name else (2, 3, 1)
    images = preprocess(pixels, spec, "cpu")
    classifier.eval()
    outputs = [classifier.prefix(depth)(images).detach() for depth in range(1, classifier.backbone.num_stages)]
    depth = max(depth for depth, output in enumerate(outputs, start=1) if output.shape[width] >= 4)
    maps = outputs[depth - 1].requires_grad_()
    assert maps.shape[height] == maps.shape[width] == 4
    logits = classifier.suffix(depth)(maps.clone())
    (gradients,) = torch.autograd.grad(logits[np.arange(3), classes].sum(), maps)
    expected = (gradients.mean(dim=(height, width), keepdim=True) * maps.detach()).sum(dim=channel).relu()
    expected = nn.functional.interpolate(expected[:, None], size=(SIZE, SIZE), mode="bilinear")[:, 0]
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    np.testing.assert_allclose(heat_maps(classifier, spec, pixels, classes), expected.numpy(), atol=1e-3)


def test_batches_change_nothing_but_rounding(classifier: Classifier) -> None:
    spec = a_spec(classifier.backbone.name, image_size=SIZE)
    pixels, classes = some_samples(5, image_size=SIZE).pixels, np.array([0, 1, 2, 1, 0])
    whole = heat_maps(classifier, spec, pixels, classes)
    np.testing.assert_allclose(heat_maps(classifier, spec, pixels, classes, batch_size=2), whole, atol=2e-3)


@pytest.mark.parametrize("trainable", [True, False])
def test_a_classifier_is_left_as_it_was(classifier: Classifier, trainable: bool) -> None:
    classifier.train().backbone.stages[0].eval()
    for place, parameter in enumerate(classifier.parameters()):
        parameter.requires_grad_(trainable)
        parameter.grad = torch.full_like(parameter, 0.5) if place % 2 and trainable else None
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    gradients = [parameter.grad for parameter in classifier.parameters()]
    modes_before = modes(classifier)
    spec = a_spec(classifier.backbone.name, image_size=SIZE)
    with torch.no_grad():
        heat_maps(classifier, spec, some_samples(2, image_size=SIZE).pixels, np.array([0, 1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    assert all(
        found.grad is was and (was is None or bool((was == 0.5).all()))
        for found, was in zip(classifier.parameters(), gradients, strict=True)
    )
    assert all(parameter.requires_grad == trainable for parameter in classifier.parameters())
    assert modes(classifier) == modes_before
    for part in classifier.modules():
        assert not (part._forward_hooks or part._forward_pre_hooks or part._backward_hooks)
    classifier.zero_grad()


def test_no_images_give_no_maps(tiny_classifier: Callable[..., Classifier]) -> None:
    none = np.zeros((0, 16, 16, 3), dtype=np.uint8)
    assert heat_maps(tiny_classifier(), a_spec(), none, np.zeros(0, dtype=np.int64)).shape == (0, 16, 16)


def test_grad_cam_before_pooling_and_one_linear_layer_is_the_class_activation_map() -> None:
    """Section 3.1 of Selvaraju et al.: the gradients are then the weights of the layer, up to a factor."""

    def convolution() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True))

    with seeded(3):
        stages = [convolution(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))]
        classifier = new_classifier(Backbone(stages, feature_dim=6, name="own"), 3, seed=1).eval()
    spec, pixels = a_spec(image_size=16), some_samples(3).pixels
    classes = np.array([2, 0, 1])
    with torch.no_grad():
        activations = stages[0](preprocess(pixels, spec, "cpu"))
        weights = classifier.head.weight[classes]
        expected = (weights[:, :, None, None] * activations).sum(dim=1).relu()
        expected = nn.functional.interpolate(expected[:, None], size=(16, 16), mode="bilinear")[:, 0]
        expected /= expected.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(heat_maps(classifier, spec, pixels, classes), expected.numpy(), atol=1e-5)


def test_maps_of_different_classes_differ(tiny_classifier: Callable[..., Classifier]) -> None:
    pixels = np.repeat(some_samples(1).pixels, 3, axis=0)
    maps = heat_maps(tiny_classifier(), a_spec(), pixels, np.arange(3))
    assert np.abs(maps[0] - maps[1]).max() > 0.1 or np.abs(maps[0] - maps[2]).max() > 0.1


def test_a_class_that_nothing_speaks_for_has_an_empty_map() -> None:
    stages = [nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))]
    classifier = new_classifier(Backbone(stages, feature_dim=2, name="own"), 2, seed=0)
    nn.init.constant_(classifier.head.weight, -1.0)
    maps = heat_maps(classifier, a_spec(), some_samples(2).pixels, np.array([0, 1]))
    assert not maps.any()


def test_small_images_are_explained_where_places_can_be_told_apart() -> None:
    with seeded(0):
        classifier = new_classifier(create_backbone("resnet18", {}, 32), len(LABELS), seed=0)
    pixels = some_samples(3, image_size=32).pixels
    maps = heat_maps(classifier, a_spec("resnet18", image_size=32), pixels, np.arange(3))
    # Of 32 px the last stage leaves one place and the one before it 2 x 2, whose corners are 8 px of one value.
    assert any(np.ptp(heat[:8, :8]) > 0 for heat in maps)


def test_a_backbone_without_maps_is_refused_by_name() -> None:
    stages = [nn.Sequential(nn.Flatten(1), nn.Linear(3 * 16 * 16, 4))]
    classifier = new_classifier(Backbone(stages, feature_dim=4, name="flat"), 2, seed=0)
    with pytest.raises(BackboneError, match=r"must give a map.*got flat"):
        heat_maps(classifier, a_spec(), some_samples(2).pixels, np.array([0, 1]))


def test_roll_out_of_two_layers_is_that_by_hand() -> None:
    first = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    second = torch.tensor([[[0.2, 0.8], [1.0, 0.0]]])
    # Half the identity: [[.75, .25], [0, 1]] and [[.6, .4], [.5, .5]]; the later layer stands on the left.
    expected = torch.tensor([[[0.45, 0.55], [0.375, 0.625]]])
    torch.testing.assert_close(roll_out([first, second]), expected)


def test_rolled_out_rows_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(3, 7, 7, generator=generator).softmax(dim=2) for _ in range(5)]
    torch.testing.assert_close(roll_out(layers).sum(dim=2), torch.ones(3, 7))


def test_a_vit_is_explained_by_the_attention_that_it_used() -> None:
    """One layer: what the class token attends to, with the attention computed from the projections by hand."""
    with seeded(5):
        model = VisionTransformer(
            image_size=16, patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=2
        ).eval()
        classifier = new_classifier(vit_backbone(model), 2, seed=0)
    spec, pixels = a_spec(image_size=16), some_samples(3).pixels
    embedding, block = classifier.backbone.stages[0][0], classifier.backbone.stages[1][0]
    with torch.no_grad():
        tokens = block.ln_1(embedding(preprocess(pixels, spec, "cpu")))
        attention = block.self_attention
        queries, keys, _ = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=2)
        heads = [
            (query @ key.transpose(1, 2) / 4**0.5).softmax(dim=2)
            for query, key in zip(queries.split(4, dim=2), keys.split(4, dim=2), strict=True)
        ]
        to_patches = (0.5 * sum(heads) / 2)[:, 0, 1:].reshape(3, 1, 4, 4)
        expected = nn.functional.interpolate(to_patches, size=(16, 16), mode="bilinear")[:, 0]
        expected /= expected.amax(dim=(1, 2), keepdim=True)
    maps = heat_maps(classifier, spec, pixels, np.zeros(3, dtype=np.int64))
    np.testing.assert_allclose(maps, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "image_size", "side"), [("small_cnn", 48, 18), ("small_vit", 32, 12)])
def test_most_of_the_mass_lies_on_a_planted_object(name: str, image_size: int, side: int) -> None:
    spec = a_spec(f"test_explanations:{name}", image_size=image_size)
    test, places = planted_objects(60, seed=2, size=image_size, side=side)
    classifier = trained_on_objects(spec, side)
    predicted = predict_probabilities(classifier, spec, test.pixels, device="cpu").argmax(axis=1)
    assert (predicted == test.labels).mean() > 0.95
    maps = heat_maps(classifier, spec, test.pixels, predicted)
    # An object covers 0.14 of the image.
    assert places.mean() == pytest.approx(0.14, abs=0.001)
    assert share_on_objects(maps, places) > 0.5
    on_object = [place.ravel()[heat.argmax()] for heat, place in zip(maps, places, strict=True)]
    assert np.mean(on_object) > 0.9


def trained_on_objects(spec: BackboneSpec, side: int) -> Classifier:
    samples, _ = planted_objects(252, seed=1, size=spec.image_size, side=side)
    with seeded(0):
        classifier = new_classifier(create_backbone(spec.name, spec.kwargs, spec.image_size), 3, seed=0)
    recipe = some_hyperparameters(freeze_depth=0, learning_rate=3e-3, epochs=15, batch_size=32)
    fine_tune(classifier, spec, samples, samples, recipe, some_settings(batch_norm="train"))
    return classifier
