"""The run's own training split as a part of its source task."""

from __future__ import annotations

from orchestrator.config.base import PositiveFloat
from orchestrator.config.data import Section
from orchestrator.config.finetune import InnerShare


class PretrainingTargetConfig(Section):
    """Say how the run's own training images count where labels are pretrained on them and on the source together.

    `batch_share` is the share of the run's own images in a batch: `pretrain.batch_size` counts source images, the run's
    own come in addition. `weight` is that of their mean loss in a batch beside the mean loss of the source, which has
    weight 1.
    """

    batch_share: InnerShare = 0.2
    weight: PositiveFloat = 1.0
