from collections.abc import Callable

import pytest
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.errors import BackboneError
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.freezing import batch_norm_layers, freeze


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_the_prefix_is_frozen_and_the_suffix_is_not(tiny_classifier: Callable[..., Classifier], depth: int) -> None:
    classifier = tiny_classifier().train()
    prefix, suffix = freeze(classifier, depth)
    assert len(prefix) == depth
    assert not any(module.training for module in prefix.modules())
    assert not any(parameter.requires_grad for parameter in prefix.parameters())
    assert all(parameter.requires_grad for parameter in suffix.parameters())
    both = {*map(id, prefix.parameters()), *map(id, suffix.parameters())}
    assert both == set(map(id, classifier.parameters()))


def test_freezing_less_thaws_again(tiny_classifier: Callable[..., Classifier]) -> None:
    classifier = tiny_classifier()
    freeze(classifier, 3)
    freeze(classifier, 0)
    assert all(parameter.requires_grad for parameter in classifier.parameters())


@pytest.mark.parametrize("depth", [4, -1])
def test_a_depth_outside_the_backbone_is_refused(tiny_classifier: Callable[..., Classifier], depth: int) -> None:
    with pytest.raises(BackboneError, match=rf"freeze_depth must be at most 3 for tiny, got {depth}. Lower"):
        freeze(tiny_classifier(), depth)


@pytest.mark.parametrize(("mode", "training"), [("frozen", False), ("train", True)])
def test_batch_norm_alone_can_stay_in_eval_mode(
    tiny_classifier: Callable[..., Classifier], mode: str, training: bool
) -> None:
    _, suffix = freeze(tiny_classifier(), 1)
    suffix.set_mode(1, mode)
    assert len(batch_norm_layers(suffix)) == 2
    for module in suffix.modules():
        assert module.training is (training if isinstance(module, _BatchNorm) else True)


def test_the_mode_is_set_again_after_the_suffix_was_evaluated(tiny_classifier: Callable[..., Classifier]) -> None:
    _, suffix = freeze(tiny_classifier(), 1)
    suffix.set_mode(1, "train")
    suffix.eval()
    suffix.set_mode(1, "train")
    assert all(module.training for module in suffix.modules())
