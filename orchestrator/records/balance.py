"""What a balanced training shows more than once."""

from __future__ import annotations

from orchestrator.records.base import Value


class Balance(Value):
    """Say what an epoch shows more than once, and what it leaves out, where all classes are drawn equally often.

    Counts are of the first epoch; in others they are the same, up to one draw a class. Of `num_classes` with training
    images, `num_repeated` have fewer than their share and are repeated. Those of `most_repeated`, of which there are
    `most_repeated_images`, are shown most often: `times_shown` times each, on average. Of `num_images` training images
    `num_left_out` are not shown in that epoch.
    """

    num_classes: int
    num_repeated: int
    most_repeated: str
    most_repeated_images: int
    times_shown: float
    num_images: int
    num_left_out: int
