"""What a backbone costs whatever it is used for: parameters, operations, and its pace on this machine."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.families import forward_on_meta
from orchestrator.finetune.probe import median_s

_BATCH = 32


def count_parameters(backbone: Backbone) -> int:
    """Count the parameters of a backbone, its head not being part of it."""
    return sum(parameter.numel() for parameter in backbone.parameters())


def forward_flops(backbone: Backbone, image_size: int) -> int:
    """Count the floating-point operations of one image's forward pass, by torch's own formulas.

    Those of convolutions, matrix products and attention, a multiplication and an addition counting as two.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    # The fused encoder layer is one operation that has no formula; without it each of its products has.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            forward_on_meta(backbone, torch.empty(1, 3, image_size, image_size, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())


def images_per_second(backbone: Backbone, image_size: int) -> float:
    """Time the forward pass of a batch of 32 images in evaluation mode on one core of this machine."""
    images = torch.zeros(_BATCH, 3, image_size, image_size).to(memory_format=torch.channels_last)
    backbone.cpu().eval()

    def forward() -> None:
        with torch.no_grad():
            backbone(images)

    threads = torch.get_num_threads()
    # What the whole machine gives depends on who else computes.
    torch.set_num_threads(1)
    try:
        return _BATCH / median_s(forward, "cpu")
    finally:
        torch.set_num_threads(threads)
