import numpy as np
import pytest
from evaluation_examples import RECIPE, a_prediction_table, paired
from parts_examples import InParts

from orchestrator.errors import DataError
from orchestrator.evaluation.answered_images import AnsweredImages
from orchestrator.evaluation.gains import answers_of_shipped, cheapest_baseline, subset_gains
from orchestrator.evaluation.intervals import paired_gain
from orchestrator.records import Baseline, Evaluation


def a_baseline(name: str, seconds: float, interval: tuple[float, float] | None = (0.0, 0.1)) -> Baseline:
    known = interval is not None
    return Baseline.model_validate(
        {
            "name": name,
            "hyperparameters": RECIPE,
            "accuracy": 0.8 if known else None,
            "accuracy_interval": (0.7, 0.9) if known else None,
            "seconds": seconds,
            "accuracy_gain": 0.05 if known else None,
            "accuracy_gain_interval": interval,
            "error": None if known else "out of memory",
        }
    )


def an_evaluation(*baselines: Baseline) -> Evaluation:
    return Evaluation(
        group="low",
        classes=["a"],
        num_images=10,
        confusion_matrix=[],
        subsets=[],
        baselines=list(baselines),
        num_units=10,
        calibration=None,
        separation=None,
        predictions="",
        seconds=1.0,
    )


def test_the_cheapest_baseline_is_that_of_the_fewest_seconds() -> None:
    found = cheapest_baseline(an_evaluation(a_baseline("fixed_rule", 9.0), a_baseline("head_only", 2.0)))
    assert found is not None and found.name == "head_only"


def test_a_baseline_that_failed_is_none_to_compare_with() -> None:
    failed = a_baseline("head_only", 0.0, interval=None)
    found = cheapest_baseline(an_evaluation(failed, a_baseline("from_scratch", 9.0)))
    assert found is not None and found.name == "from_scratch"
    assert cheapest_baseline(an_evaluation(failed)) is None


@pytest.mark.parametrize("images_of_one_kin", [0, 6])
def test_each_subset_is_compared_on_its_own_images_kin_drawn_together(images_of_one_kin: int) -> None:
    table = a_prediction_table(60, images_of_one_kin=images_of_one_kin)
    correct = np.random.default_rng(1).random(60) < 0.4
    beside = table.with_baselines({"head_only": correct})
    answers = {name: paired(beside.for_subset(name)) for name in ("south", "north")}
    found = list(subset_gains(answers, "head_only", bootstrap_samples=300, seed=3))
    assert [(name, images) for name, images, _ in found] == [("north", 30), ("south", 30)]
    for name, _, gain in found:
        own = np.asarray(table.subsets) == name
        units = table.for_subset(name).units
        assert gain == paired_gain(table.correct[own], correct[own], 300, 3, units)
    assert found[0][2] != found[1][2]


def test_a_model_that_serves_a_subset_in_the_end_is_compared_on_that_subsets_images() -> None:
    table = a_prediction_table(60, images_of_one_kin=6)
    baseline = np.random.default_rng(1).random(60) < 0.4
    shipped = {"south": np.random.default_rng(2).random(30) < 0.9, "empty": np.zeros(0, dtype=bool)}
    whole = table.with_baselines({"head_only": baseline})
    for size in (60, 7):
        parts = [AnsweredImages.from_table(part.to_table()) for part in InParts(whole, size).parts()]
        answers = answers_of_shipped(parts, "head_only", shipped)
        (found,) = subset_gains(answers, "head_only", bootstrap_samples=300, seed=3)
        own = np.asarray(table.subsets) == "south"
        units = table.for_subset("south").units
        assert found == ("south", 30, paired_gain(shipped["south"], baseline[own], 300, 3, units))


@pytest.mark.parametrize("count", [29, 31])
def test_a_model_that_was_tested_on_other_images_is_not_compared(count: int) -> None:
    table = a_prediction_table(60).with_baselines({"head_only": np.ones(60, dtype=bool)})
    parts = [AnsweredImages.from_table(table.to_table())]
    with pytest.raises(DataError, match=r"same images|tested on its 30 test images, got 31"):
        answers_of_shipped(parts, "head_only", {"south": np.ones(count, dtype=bool)})
