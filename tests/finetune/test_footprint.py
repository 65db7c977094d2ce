"""What a backbone costs is counted as its makers state it, and measured where it is asked for."""

from __future__ import annotations

import pytest
import torch
from finetune_examples import tiny_backbone
from torchvision.models import get_model_weights

from orchestrator.finetune.backbones import create_backbone
from orchestrator.finetune.families import build_model, head_of
from orchestrator.finetune.footprint import count_parameters, forward_flops, images_per_second


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "vit_b_16", "swin_t"])
def test_operations_and_parameters_are_those_that_torchvision_states(name: str) -> None:
    stated = get_model_weights(name).DEFAULT.meta
    size = stated.get("min_size", (224, 224))[0] if name == "vit_b_16" else 224
    with torch.device("meta"):
        _, head = head_of(build_model(name, {}, size))
    backbone = create_backbone(name, {}, size)
    of_head = head.in_features * head.out_features
    assert count_parameters(backbone) == stated["num_params"] - of_head - head.out_features
    assert forward_flops(backbone, size) == pytest.approx(2 * (stated["_ops"] * 1e9 - of_head), rel=0.02)


def test_operations_grow_with_the_image_and_leave_the_backbone_as_it_was() -> None:
    backbone = tiny_backbone().eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    small, large = forward_flops(backbone, 16), forward_flops(backbone, 32)
    assert 3.5 * small < large < 6 * small
    assert torch.backends.mha.get_fastpath_enabled()
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


def test_a_wider_backbone_is_slower() -> None:
    narrow, wide = (tiny_backbone(width) for width in (4, 64))
    assert images_per_second(narrow, 64) > images_per_second(wide, 64)
