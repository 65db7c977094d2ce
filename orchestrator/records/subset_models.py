"""The records of models that single subsets have beside their group's."""

from __future__ import annotations

from orchestrator.records.base import Record, Value
from orchestrator.records.evaluation import PackedAnswers, Scores
from orchestrator.records.sources import OutlierScores


class SubsetModel(Value):
    """Say which model serves a subset: its own, a path below the run directory, or the group's, and then why.

    `num_train` and `num_validation` count the images that its own model has, or would have, been trained on.
    """

    subset: str
    model: str | None
    reason: str = ""
    num_train: int
    num_validation: int


class SubsetModels(Record):
    """Hold what serves every subset of a group, in the group's order."""

    group: str
    models: list[SubsetModel]


class SubsetResult(Value):
    """Score a subset's own model on the subset's test images, over its own classes.

    `scores` are None where it has none and the group's serves it, for the `reason`. `accuracy_gain` is its accuracy
    minus that of the group's model on the same images, with a paired bootstrap interval; None without test images.
    `seconds` are those of each of `num_workers` that trained it, which held `worker_resources`. `test_answers` tells
    what it gets right, in the catalogue's order. `outliers` say how well its score tells source images that it never
    saw from these test images; None where it has none.
    """

    subset: str
    model: str | None
    reason: str = ""
    classes: list[str] = []
    scores: Scores | None = None
    accuracy_gain: float | None = None
    accuracy_gain_interval: tuple[float, float] | None = None
    seconds: float = 0.0
    num_workers: int = 1
    worker_resources: dict[str, float] = {}
    test_answers: PackedAnswers | None = None
    outliers: OutlierScores | None = None


class SubsetEvaluation(Record):
    """Hold the test of every subset's own model beside the group's.

    `accuracy` is over all test images of the group, each predicted by what serves its subset; `accuracy_gain` is that
    minus the accuracy of the group's model alone. Both are None without test images. `predictions` maps each subset
    with a model of its own to its table of predictions below the run directory.
    """

    group: str
    subsets: list[SubsetResult]
    accuracy: float | None = None
    accuracy_gain: float | None = None
    accuracy_gain_interval: tuple[float, float] | None = None
    predictions: dict[str, str] = {}
