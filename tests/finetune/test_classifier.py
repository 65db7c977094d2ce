from collections.abc import Callable

import numpy as np
import pytest
import torch
from finetune_examples import a_spec, some_samples

from orchestrator.finetune.classifier import (
    Classifier,
    extract_features,
    new_classifier,
    predict_probabilities,
    predict_with_features,
    preprocess,
)

SPEC = a_spec()


def test_pixels_are_scaled_and_normalised_per_channel() -> None:
    pixels = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    pixels[1, 2, 3] = [255, 51, 102]
    images = preprocess(pixels, SPEC, "cpu")
    assert images.shape == (2, 3, 4, 4) and images.dtype == torch.float32
    expected = (torch.tensor([1.0, 0.2, 0.4]) - torch.tensor(SPEC.mean)) / torch.tensor(SPEC.std)
    torch.testing.assert_close(images[1, :, 2, 3], expected)
    torch.testing.assert_close(images[0, :, 0, 0], -torch.tensor(SPEC.mean) / torch.tensor(SPEC.std))


@pytest.mark.filterwarnings("error")
def test_memory_mapped_pixels_and_tensors_are_taken_too() -> None:
    pixels = some_samples(2).pixels
    expected = preprocess(pixels, SPEC, "cpu")
    pixels.setflags(write=False)
    assert torch.equal(preprocess(pixels, SPEC, "cpu"), expected)
    assert torch.equal(preprocess(torch.from_numpy(pixels.copy()), SPEC, "cpu"), expected)


def test_a_new_head_depends_on_its_seed_and_leaves_the_backbone_alone(
    tiny_classifier: Callable[..., Classifier],
) -> None:
    backbone = tiny_classifier().backbone
    one, same, other = (new_classifier(backbone, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert one.head.out_features == 5
    with torch.no_grad():
        next(one.backbone.parameters()).add_(1)
    assert torch.equal(next(other.backbone.parameters()), next(backbone.parameters()))


def test_probabilities_do_not_depend_on_the_batch_size(tiny_classifier: Callable[..., Classifier]) -> None:
    classifier, pixels = tiny_classifier(), some_samples(7).pixels
    whole = predict_probabilities(classifier, SPEC, pixels, device="cpu")
    assert whole.shape == (7, 3) and whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    parts = predict_probabilities(classifier, SPEC, pixels, device="cpu", batch_size=2)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    logits = classifier(preprocess(pixels, SPEC, "cpu"))
    np.testing.assert_allclose(whole, logits.softmax(dim=1).detach().numpy(), atol=1e-6)


def test_features_are_what_the_head_sees(tiny_classifier: Callable[..., Classifier]) -> None:
    classifier, pixels = tiny_classifier(), some_samples(5).pixels
    features = extract_features(classifier.backbone, SPEC, pixels, device="cpu")
    assert features.shape == (5, classifier.backbone.feature_dim) and features.dtype == np.float32
    probabilities = classifier.head(torch.from_numpy(features)).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, predict_probabilities(classifier, SPEC, pixels, device="cpu"), atol=1e-6)


def test_no_pixels_give_no_rows(tiny_classifier: Callable[..., Classifier]) -> None:
    none = np.zeros((0, 16, 16, 3), dtype=np.uint8)
    assert predict_probabilities(tiny_classifier(), SPEC, none, device="cpu").shape == (0, 3)
    assert extract_features(tiny_classifier().backbone, SPEC, none, device="cpu").shape == (0, 16)


@pytest.mark.parametrize("num_images", [0, 5, 70])
def test_probabilities_and_features_come_out_of_one_pass_as_out_of_two(
    tiny_classifier: Callable[..., Classifier], num_images: int
) -> None:
    classifier, pixels = tiny_classifier(), some_samples(70).pixels[:num_images]
    probabilities, features = predict_with_features(classifier, SPEC, pixels, device="cpu")
    np.testing.assert_array_equal(probabilities, predict_probabilities(classifier, SPEC, pixels, device="cpu"))
    np.testing.assert_array_equal(features, extract_features(classifier.backbone, SPEC, pixels, device="cpu"))
