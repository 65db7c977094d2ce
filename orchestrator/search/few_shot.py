"""Decides what a group with few images a class is searched with, where the experiment file leaves it open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import FineTuneConfig, HeadName, Range, SearchConfig, SpaceConfig
from orchestrator.records import FewShot

# What works with few images on frozen features: see "Few images a class" in tests/benchmarks/RESULTS.md.
_RATES = Range(low=1e-4, high=1e-3, log=True)
_WEIGHT_DECAY = 0.01
_MOST_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class GroupCounts:
    """Count a group's training images by class [K], and, when asked, the units that folds may part.

    Where subsets have heads of their own, classes count once for each head. Units are of training and validation
    images: what is kept together is one.
    """

    by_class: NDArray[np.int64]
    num_units: Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Hold how a group is fine-tuned and searched, and what that has to do with its few images, if it has few."""

    finetune: FineTuneConfig
    search: SearchConfig
    few_shot: FewShot | None = None


def tuning_of(
    finetune: FineTuneConfig,
    search: SearchConfig,
    counts: GroupCounts,
    *,
    num_stages: int,
    heads: Sequence[HeadName],
    pulls_features: bool = False,
) -> Tuning:
    """Give the sections as they stand, or with other defaults for a group below `search.few_shot_threshold`.

    What counts is the median over the classes that occur in training: one rare class makes no group small. The
    defaults are: the head alone, one of `heads`; weight decay; small rates; and as many folds as there are images in
    the median class, at most five, instead of a single split. A key that the experiment file names, in `finetune` or
    in `search.space`, stays as it is. So does the depth where a penalty `pulls_features`: with the head alone it would
    have no effect.
    """
    occurring = counts.by_class[counts.by_class > 0]
    per_class = float(np.median(occurring)) if len(occurring) else 0.0
    if per_class >= search.few_shot_threshold:
        return Tuning(finetune=finetune, search=search)
    space, named = search.space, search.space.model_fields_set
    fixed: dict[str, Any] = {}
    searched: dict[str, Any] = {}
    if "freeze_depth" not in named and not pulls_features:
        searched["freeze_depth"] = [num_stages]
    if not _names("head", finetune, space) and list(heads) != [finetune.head]:
        searched["head"] = list(heads)
    if "learning_rate" not in named:
        searched["learning_rate"] = _RATES
    if not _names("weight_decay", finetune, space):
        fixed["weight_decay"] = _WEIGHT_DECAY
    folds = _folds(search, per_class, counts.num_units())
    changed = {**({} if folds == search.folds else {"folds": folds}), "space": space.model_copy(update=searched)}
    return Tuning(
        finetune=finetune.model_copy(update=fixed),
        search=search.model_copy(update=changed),
        few_shot=FewShot(
            images_per_class=per_class,
            threshold=search.few_shot_threshold,
            changed=sorted([*searched, *fixed, *(["folds"] if folds != search.folds else [])]),
            folds=folds,
        ),
    )


def _names(key: str, finetune: FineTuneConfig, space: SpaceConfig) -> bool:
    return key in finetune.model_fields_set or key in space.model_fields_set


def _folds(search: SearchConfig, per_class: float, num_units: int) -> int:
    """Give the folds: those that the file names, one where trials have several workers, else by the images."""
    if "folds" in search.model_fields_set or search.num_workers_per_trial > 1:
        return search.folds
    return max(1, min(_MOST_FOLDS, int(max(2.0, per_class)), num_units))
