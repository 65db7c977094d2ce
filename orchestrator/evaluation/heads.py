"""A head for each subset: an image is judged by that of its own, over the classes of the whole group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.gathering import gather
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.records import BaselineName, HeadScores, TaskClasses

ONE_HEAD: BaselineName = "one_head"


def by_own_heads(
    probabilities: NDArray[np.float32], subsets: Sequence[str], heads: Sequence[TaskClasses], classes: Sequence[str]
) -> NDArray[np.float32]:
    """Give the probabilities float32 [n, K] over the group's classes by the head of each image's subset.

    `probabilities` [n, K_1 + ... + K_T] are those of all heads side by side. A class that a head does not know has
    probability 0 by it. Where a subset has no head, as one without training images, the mean of all heads counts.
    """
    places = {name: place for place, name in enumerate(classes)}
    parts = np.split(probabilities, np.cumsum([len(head.classes) for head in heads])[:-1], axis=1)
    found = np.zeros((len(probabilities), len(classes)), dtype=np.float32)
    names = np.asarray(subsets, dtype=object)
    has_no_head = ~np.isin(names, np.array([head.task for head in heads], dtype=object))
    for head, part in zip(heads, parts, strict=True):
        columns = np.array([places[name] for name in head.classes])
        is_own = np.flatnonzero(names == head.task)
        found[np.ix_(is_own, columns)] = part[is_own]
        others = np.flatnonzero(has_no_head)
        found[np.ix_(others, columns)] += part[others] / len(heads)
    return found


def output_of(subset: str, label: str, heads: Sequence[TaskClasses]) -> int:
    """Give the number of the output, of those of all heads side by side, that speaks for a class of a subset's image.

    Where the subset has no head, it is that of the first head that knows the class.
    """
    starts = [0, *accumulate(len(head.classes) for head in heads)]
    own = [(start, head) for start, head in zip(starts, heads, strict=False) if head.task == subset]
    others = zip(starts, heads, strict=False)
    return next(start + head.classes.index(label) for start, head in [*own, *others] if label in head.classes)


def judge_heads(
    predictions: PredictionParts, heads: Sequence[TaskClasses], *, bootstrap_samples: int, seed: int
) -> list[HeadScores]:
    """Compare the head of each tested subset with one head for all that was trained on the same data, image by image.

    There is no gain where that has not been trained. Bootstraps draw kin together.
    """
    known = {head.task: head.classes for head in heads}
    rivals = [rival for rival in predictions.baselines if rival == ONE_HEAD]
    scores = []
    for name in predictions.subset_names:
        gathered = gather(predictions, rivals, name)
        score = HeadScores(subset=name, classes=known.get(name), num_images=len(gathered))
        if rivals:
            gain, interval = gathered.gain_over(ONE_HEAD, bootstrap_samples, seed)
            score = score.model_copy(update={"accuracy_gain": gain, "accuracy_gain_interval": interval})
        scores.append(score)
    return scores
