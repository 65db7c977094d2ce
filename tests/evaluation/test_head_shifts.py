"""Class frequencies of further tasks and of subsets' heads are estimated by these alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from shift_examples import a_classifier

from orchestrator.evaluation.head_shifts import judge_head_shifts, judge_task_shift
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.shift_judging import judge_shift
from orchestrator.records import ShiftMethod, TaskClasses

CLASSES = ["ant", "bee", "cat", "dog", "elk"]
HEADS = [
    TaskClasses(task="north", classes=["bee", "dog", "elk"]),
    TaskClasses(task="south", classes=["ant", "cat", "elk"]),
    TaskClasses(task="west", classes=["ant"]),
]
SHIFTED = {"north": np.array([0.8, 0.15, 0.05]), "south": np.array([0.1, 0.1, 0.8])}
ASKED = {"bootstrap_samples": 200, "seed": 0}


def of_group(parts: dict[str, Predictions]) -> Predictions:
    """Give the predictions of several heads over three classes each as those of a group over all classes."""
    found = []
    for head in HEADS:
        if head.task in parts:
            part = parts[head.task]
            places = np.array([CLASSES.index(name) for name in head.classes])
            spread = np.zeros((len(part), len(CLASSES)), dtype=np.float32)
            spread[:, places] = part.probabilities
            subsets = [head.task] * len(part)
            found.append(replace(part, truth=places[part.indices], probabilities=spread, subsets=subsets))
    return replace(
        found[0],
        ids=[str(number) for number in range(sum(map(len, found)))],
        subsets=[name for part in found for name in part.subsets],
        together=[name for part in found for name in part.together],
        truth=np.concatenate([part.truth for part in found]),
        probabilities=np.concatenate([part.probabilities for part in found]),
    )


def images(num_images: int, frequencies: NDArray[np.float64] | None, seed: int) -> Predictions:
    return a_classifier().images(num_images, frequencies, seed)


@pytest.mark.parametrize("method", ["confusion", "em"])
def test_a_head_is_corrected_over_its_own_classes_by_its_own_validation_images(method: ShiftMethod) -> None:
    tested = {name: images(400, found, seed) for seed, (name, found) in enumerate(SHIFTED.items(), start=2)}
    known = {name: images(600, None, seed) for seed, name in enumerate(SHIFTED, start=8)}
    given = (HEADS, of_group(tested), of_group(known), CLASSES, method)
    found = judge_head_shifts(*given, **ASKED)
    assert list(found) == ["north", "south"]
    for head in HEADS[:2]:
        alone = judge_shift(tested[head.task], head.classes, known[head.task], method, **ASKED).whole
        shift = found[head.task]
        assert shift.subset == head.task
        assert (shift.before, shift.corrected) == (alone.before, alone.corrected)
        estimated, expected = (
            np.array([frequency.estimated for frequency in each.frequencies]) for each in (shift, alone)
        )
        np.testing.assert_allclose(estimated, expected)
        np.testing.assert_allclose(estimated, SHIFTED[head.task], atol=0.1)
        assert shift.num_validation == 600 and shift.accuracy_gain_interval[0] > 0.0


def test_subsets_without_validation_images_or_without_a_method_are_left_out() -> None:
    tested, known = ({name: images(60, None, 1) for name in names} for names in (("north", "south"), ("south",)))
    given = (HEADS, of_group(tested), of_group(known), CLASSES)
    assert list(judge_head_shifts(*given, "em", **ASKED)) == ["south"]
    assert judge_head_shifts(*given, None, **ASKED) == {}


def test_a_further_task_is_corrected_by_its_own_validation_predictions() -> None:
    task = TaskClasses(task="form", classes=["round", "square", "long"])
    tested, known = images(400, SHIFTED["south"], 3), images(300, None, 9)
    found = judge_task_shift(task, tested, known, "em", **ASKED)
    assert found == judge_shift(tested, task.classes, known, "em", **ASKED)
    none = replace(known, ids=[], subsets=[], together=[], truth=known.truth[:0], probabilities=known.probabilities[:0])
    assert judge_task_shift(task, tested, none, "em", **ASKED) is None
    assert judge_task_shift(task, none, known, "em", **ASKED) is None
    assert judge_task_shift(task, tested, known, None, **ASKED) is None
