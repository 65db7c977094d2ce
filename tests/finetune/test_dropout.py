import pytest
import torch
from torch import nn
from torchvision.models import ConvNeXt, resnet18
from torchvision.models.convnext import CNBlockConfig
from torchvision.ops import StochasticDepth

from orchestrator.finetune.dropout import set_stochastic_depth
from orchestrator.finetune.families import build_model, cut_into_stages, list_names

SETTING = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 3)]


def a_model(rate: float) -> ConvNeXt:
    torch.manual_seed(0)
    return ConvNeXt(SETTING, stochastic_depth_prob=rate, num_classes=3)


def rates(module: nn.Module) -> list[float]:
    return [layer.p for layer in module.modules() if isinstance(layer, StochasticDepth)]


@pytest.mark.parametrize("built_with", [0.0, 0.1, 0.6])
def test_rates_are_those_of_a_model_built_with_them(built_with: float) -> None:
    model = a_model(built_with)
    assert set_stochastic_depth(model, 0.4) == 5
    assert rates(model) == pytest.approx(rates(a_model(0.4)))


def test_a_backbone_that_was_switched_off_can_be_set_again() -> None:
    model = a_model(0.4)
    set_stochastic_depth(model, 0.0)
    assert rates(model) == [0.0] * 5
    set_stochastic_depth(model, 0.4)
    assert rates(model) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_blocks_are_skipped_in_training_alone() -> None:
    images = torch.rand(2, 3, 32, 32)
    model = a_model(0.0).eval()
    # Untrained blocks add almost nothing: their scale starts at a millionth.
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):
            nn.init.ones_(parameter)
    plain = model(images)
    set_stochastic_depth(model, 0.9)
    assert torch.equal(model(images), plain)
    assert not torch.equal(model.train()(images), plain)


def test_a_single_module_gets_the_whole_rate() -> None:
    module = nn.Sequential(StochasticDepth(0.1, "row"))
    assert set_stochastic_depth(module, 0.3) == 1 and rates(module) == [0.3]


def test_families_without_it_have_none() -> None:
    with torch.device("meta"):
        assert set_stochastic_depth(resnet18(), 0.3) == 0


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny", "swin_t"])
def test_the_stages_of_families_that_have_it_get_the_largest_rate_last(name: str) -> None:
    assert name in list_names()
    with torch.device("meta"):
        stages = nn.Sequential(*cut_into_stages(build_model(name, {}, 32), name))
    assert set_stochastic_depth(stages, 0.25) == len(rates(stages)) > 1
    assert rates(stages) == sorted(rates(stages)) and max(rates(stages)) == 0.25
