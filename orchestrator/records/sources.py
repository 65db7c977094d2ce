"""What a source was to a model that was trained together with it."""

from __future__ import annotations

from orchestrator.config import DomainPenalty, Negatives
from orchestrator.records.base import Value


class SourceUse(Value):
    """Say what a model was trained together with, and how it counted; `config.SourceConfig` says what the fields are.

    `num_images` counts the images of the source that it drew from. Where that streamed more of them than are cached,
    `num_searched` counts those that the trials of the search had.
    `shared_classes` are those of the model that the source has too, by name, and `num_other_classes` counts the rest of
    its classes, which the model leaves out. With `as_negatives` the source's labels count for nothing: both are empty.
    `batch_share` is None where there were no batches: prototypes alone were found, of target and source.
    """

    uri: str
    num_images: int
    num_searched: int | None = None
    shared_classes: list[str]
    num_other_classes: int
    batch_share: float | None
    weight: float
    penalty: DomainPenalty
    penalty_weight: float
    as_negatives: Negatives


class OutlierScores(Value):
    """Say how well a model's score tells source images it never saw from the target's test images.

    `auc` is the chance that a source image has the higher score, ties by half, with a bootstrap interval over images.
    """

    negatives: Negatives
    auc: float
    auc_interval: tuple[float, float]
    num_target: int
    num_source: int
