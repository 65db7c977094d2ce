"""Other class frequencies where a network has several heads: each is corrected by its own validation images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.paired_answers import count_units
from orchestrator.evaluation.parts import PredictionParts, Scored, count_images
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.shift_judging import judge_shift
from orchestrator.records import LabelShift, ShiftMethod, SubsetShift, TaskClasses


def judge_task_shift(
    task: TaskClasses,
    predictions: PredictionParts,
    validation: PredictionParts,
    method: ShiftMethod | None,
    *,
    bootstrap_samples: int,
    seed: int,
) -> LabelShift | None:
    """Estimate the class frequencies of a further task on the images that are labelled for it, as of the first.

    None without a method, and where no test image or no validation image has a label for the task.
    """
    if method is None or not len(predictions) or not len(validation):
        return None
    return judge_shift(predictions, task.classes, validation, method, bootstrap_samples=bootstrap_samples, seed=seed)


def judge_head_shifts(
    heads: Sequence[TaskClasses],
    predictions: PredictionParts,
    validation: PredictionParts,
    classes: Sequence[str],
    method: ShiftMethod | None,
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, SubsetShift]:
    """Estimate the class frequencies of each subset by its head's predictions, over the classes of that head alone.

    `predictions` and `validation` are over all `classes`, each image by the head of its subset. Left out are subsets
    without a head, without test images or without validation images.
    """
    if method is None:
        return {}
    tested, known = set(predictions.subset_names), set(validation.subset_names)
    found = {}
    for head in heads:
        if head.task in tested and head.task in known:
            columns = np.array([classes.index(name) for name in head.classes], dtype=np.int64)
            images, own = (_OfHead(head.task, columns, parts) for parts in (predictions, validation))
            shift = judge_shift(images, head.classes, own, method, bootstrap_samples=bootstrap_samples, seed=seed)
            found[head.task] = shift.whole.model_copy(update={"subset": head.task})
    return found


@dataclass(frozen=True, eq=False)
class _OfHead:
    """Give a head's predictions on its subset's images over its own classes: these columns [K] of those of the group.

    As a whole alone: it has no parts by subset.
    """

    subset: str
    columns: NDArray[np.int64]
    group: PredictionParts

    def __len__(self) -> int:
        return count_images(self.group, self.subset)

    @property
    def num_classes(self) -> int:
        return len(self.columns)

    @property
    def is_multi_label(self) -> bool:
        return False

    @property
    def subset_names(self) -> list[str]:
        return []

    @property
    def num_units(self) -> int:
        return count_units([name for part in self.parts() for name in part.together])

    @property
    def baselines(self) -> Mapping[str, NDArray[np.bool_]]:
        return {}

    def with_baselines(self, correct: Mapping[str, NDArray[np.bool_]]) -> Self:
        return replace(self, group=self.group.with_baselines(correct))

    def has_kin(self, subset: str | None = None) -> bool:
        return self.group.has_kin(self.subset)

    def parts(self, subset: str | None = None) -> Iterator[Predictions]:
        places = np.full(self.group.num_classes, -1, dtype=np.int64)
        places[self.columns] = np.arange(len(self.columns))
        for part in self.group.parts(self.subset):
            yield replace(part, truth=places[part.indices], probabilities=part.probabilities[:, self.columns])

    def scored(self) -> Iterator[Scored]:
        return ((part.probabilities, part.indices) for part in self.parts())
