"""What a pretraining has beside its source: the weights that it begins with, and the run's own images."""

from __future__ import annotations

from orchestrator.records.base import Value


class StartingWeights(Value):
    """Name the weights that a pretraining begins with, as the experiment file does, and their digest.

    `learnt` are the fingerprints of the data whose labels they know, as far as that was told.
    """

    source: str
    digest: str
    learnt: list[str] = []


class PretrainingTarget(Value):
    """Say which of a run's own images were pretrained on together with the source, and how they counted.

    `num_images` counts the training images: no other was learnt from. `shared_classes` are those that the source has
    too, by name, `own_classes` the others. `batch_share` is the share of every batch, `weight` that of their mean loss
    beside the mean loss of the source, whose weight is 1.
    """

    data_uri: str
    data_fingerprint: str
    num_images: int
    shared_classes: list[str]
    own_classes: list[str]
    batch_share: float
    weight: float
