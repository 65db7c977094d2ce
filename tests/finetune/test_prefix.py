from collections.abc import Callable

import numpy as np
import pytest
import torch
from finetune_examples import a_spec, some_samples, some_settings

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.prefix import Prefix, Remembered, suffix_inputs


def a_prefix(classifier: Classifier, depth: int, **settings: object) -> Prefix:
    return Prefix(stages=freeze(classifier, depth)[0], spec=a_spec(), settings=some_settings(**settings))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_remembered_outputs_are_the_computed_ones(
    tiny_classifier: Callable[..., Classifier], depth: int, precision: str
) -> None:
    samples = some_samples(70)
    classifier = tiny_classifier()
    [remembered] = suffix_inputs(a_prefix(classifier, depth, precision=precision), [samples])
    [computed] = suffix_inputs(a_prefix(classifier, depth, precision=precision, activation_bytes=0), [samples])
    positions = np.array([69, 3, 64, 3])
    one, other = remembered.take(positions), computed.take(positions)
    assert one.dtype == other.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert one.shape == other.shape
    assert one.is_contiguous(memory_format=torch.contiguous_format) == other.is_contiguous()
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-2 if precision == "bf16" else 1e-5)
    assert not one.requires_grad


def test_outputs_are_computed_once_when_they_fit(tiny_classifier: Callable[..., Classifier]) -> None:
    train, validation = some_samples(10), some_samples(6)
    sources = suffix_inputs(a_prefix(tiny_classifier(), 3), [train, validation])
    for _ in range(3):
        sources[0].take(np.arange(10))
    assert sorted(train.taken) == list(range(10))
    assert sorted(validation.taken) == list(range(6))


def test_the_bound_is_on_all_samples_together(tiny_classifier: Callable[..., Classifier]) -> None:
    sources = [some_samples(10), some_samples(6)]
    needed = (10 + 6) * 16 * 4  # features of 16 float32
    for allowed, kind in ((needed, True), (needed - 1, False)):
        inputs = suffix_inputs(a_prefix(tiny_classifier(), 3, activation_bytes=allowed), sources)
        assert [isinstance(entry, Remembered) for entry in inputs] == [kind, kind]


def test_images_themselves_are_not_remembered(tiny_classifier: Callable[..., Classifier]) -> None:
    [inputs] = suffix_inputs(a_prefix(tiny_classifier(), 0), [some_samples(4)])
    assert not isinstance(inputs, Remembered)
    assert inputs.take(np.array([0, 2])).shape == (2, 3, 16, 16)
