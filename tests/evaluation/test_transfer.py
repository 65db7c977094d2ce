from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from orchestrator.errors import DataError
from orchestrator.evaluation.intervals import CONFIDENCE, resample
from orchestrator.evaluation.predictions import number_units
from orchestrator.evaluation.transfer import choose_better, compare_on_split, gain_over, judge_transfer
from orchestrator.records import ArmGain, SplitComparison

Correct = NDArray[np.bool_]

# True accuracies of a subset's models. Their errors are correlated, as they see the same images: what makes
# an image hard for one makes it hard for all.
HARDNESS_SHARE = 0.6
KINDS = {
    "helps": [
        {"group": 0.90, "from_scratch": 0.72, "head_only": 0.85, "subset_only": 0.79, "pooled": 0.90},
        {"group": 0.75, "from_scratch": 0.50, "head_only": 0.76, "subset_only": 0.62, "pooled": 0.73},
    ],
    "no_difference": [
        {"group": 0.80, "from_scratch": 0.80, "head_only": 0.80, "subset_only": 0.80, "pooled": 0.80},
        {"group": 0.92, "from_scratch": 0.65, "head_only": 0.88, "subset_only": 0.92, "pooled": 0.94},
    ],
    "hurts": [
        {"group": 0.78, "from_scratch": 0.60, "head_only": 0.74, "subset_only": 0.90, "pooled": 0.78},
        {"group": 0.60, "from_scratch": 0.74, "head_only": 0.58, "subset_only": 0.62, "pooled": 0.66},
    ],
}


def answers(accuracies: Mapping[str, float], num_images: int, kin: int, rng: np.random.Generator) -> dict[str, Correct]:
    """Draw what models of these accuracies get right; images of one kin, `kin` in a row, are alike in hardness."""
    of_kin = np.repeat(rng.normal(size=-(-num_images // kin)), kin)[:num_images]
    of_image = rng.normal(size=num_images)
    hardness = of_kin if kin == 1 else np.sqrt(0.5) * (of_kin + of_image)
    own = np.sqrt(1 - HARDNESS_SHARE) * rng.normal(size=(len(accuracies), num_images))
    difficulty = np.sqrt(HARDNESS_SHARE) * hardness + own
    return {name: row < stats.norm.ppf(accuracies[name]) for name, row in zip(accuracies, difficulty, strict=True)}


def studies(kind: str, count: int) -> Iterator[tuple[dict[str, Correct], list[str]]]:
    """Draw studies of 300 to 600 test images, every other one with images in kin of three."""
    rng = np.random.default_rng(7)
    for number in range(count):
        num_images, kin = int(rng.integers(300, 601)), 1 + 2 * (number % 2)
        accuracies = KINDS[kind][number // 2 % len(KINDS[kind])]
        yield (
            answers(accuracies, num_images, kin, rng),
            [f"kin{image // kin}" if kin > 1 else "" for image in range(num_images)],
        )


def joint_gains(
    correct: Correct, others: Mapping[str, Correct], together: list[str] | None = None, *, bootstrap_samples: int
) -> list[ArmGain]:
    names = [""] * len(correct) if together is None else together
    found = compare_on_split(correct, others, names, bootstrap_samples=bootstrap_samples, seed=0)
    return [] if found is None else found.others


def by_hand(models: list[Correct], together: list[str], samples: int) -> list[tuple[float, float]]:
    """Bound the gains of the first model over the others as the formulas have it, image by image."""
    units = number_units(together)
    units = np.arange(len(together)) if units is None else units
    columns = [models[0].astype(int) - other for other in models[1:]]
    sums = np.stack([np.bincount(units, column) for column in [*columns, np.ones(len(units))]], axis=1)
    size = len(together) / len(sums)
    won = [size] * len(columns)
    sums = np.vstack([sums, [*won, size], [*np.negative(won), size]])
    rows, counts = np.unique(sums, axis=0, return_counts=True)
    found = resample(rows, counts, samples, 0, lambda drawn: drawn[:, :-1] / drawn[:, -1:])
    centres, errors = sums[:, :-1].sum(axis=0) / sums[:, -1].sum(), found.std(axis=0)
    reach = np.quantile((np.abs(found - centres) / errors).max(axis=1), CONFIDENCE) * errors
    return [(max(-1.0, low), min(1.0, high)) for low, high in zip(centres - reach, centres + reach, strict=True)]


@pytest.mark.parametrize(("num_images", "kin"), [(1, 0), (40, 0), (200, 3), (200, 1)])
def test_intervals_of_sums_are_those_of_images(num_images: int, kin: int) -> None:
    rng = np.random.default_rng(4)
    models = [rng.random(num_images) < share for share in (0.8, 0.7, 0.6, 0.8)]
    # Every fourth image is alone.
    together = [f"kin{image // kin}" if kin and image % 4 else "" for image in range(num_images)]
    others = {str(number): model for number, model in enumerate(models[1:])}
    found = joint_gains(models[0], others, together, bootstrap_samples=300)
    np.testing.assert_allclose([gain.gain_interval for gain in found], by_hand(models, together, 300), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_are_right_in_at_least_95_of_100_simulated_studies(kind: str) -> None:
    verdicts: Counter[str | None] = Counter()
    for models, together in studies(kind, 200):
        comparison = compare_on_split(models.pop("group"), models, together, bootstrap_samples=500, seed=0)
        verdicts[judge_transfer(comparison)] += 1
    assert verdicts[kind] >= 190, verdicts


@pytest.mark.parametrize("num_images", [12, 25, 60])
def test_few_images_are_rarely_taken_for_a_difference_that_is_not_there(num_images: int) -> None:
    rng = np.random.default_rng(3)
    equal = dict.fromkeys(KINDS["helps"][0], 0.8)
    wrong = 0
    for _ in range(300):
        models = answers(equal, num_images, 1, rng)
        found = compare_on_split(models.pop("group"), models, [""] * num_images, bootstrap_samples=500, seed=0)
        wrong += judge_transfer(found) != "no_difference"
    assert wrong <= 15


def test_the_intervals_of_all_arms_hold_the_true_gains_at_once() -> None:
    rng = np.random.default_rng(0)
    truth = KINDS["helps"][0]
    held = 0
    for _ in range(300):
        models = answers(truth, 250, 1, rng)
        gains = joint_gains(models.pop("group"), models, bootstrap_samples=500)
        held += all(
            low <= truth["group"] - truth[found.name] <= high for found in gains for low, high in [found.gain_interval]
        )
    assert 0.92 * 300 < held <= 300


def test_a_gain_stands_beside_the_accuracy_that_it_is_over() -> None:
    correct = np.array([True, True, True, False])
    (found,) = joint_gains(correct, {"head_only": np.array([True, False, False, False])}, bootstrap_samples=200)
    assert (found.name, found.accuracy, found.gain) == ("head_only", 0.25, 0.5)
    assert -1 <= found.gain_interval[0] < 0.5 < found.gain_interval[1] <= 1


def test_models_with_equal_answers_may_still_differ_by_what_few_images_do_not_show() -> None:
    widths = []
    for num_images in (10, 100, 1000):
        correct = np.ones(num_images, dtype=bool)
        (found,) = joint_gains(correct, {"head_only": correct}, bootstrap_samples=500)
        low, high = found.gain_interval
        assert found.gain == 0 and low < 0 < high
        widths.append(high - low)
    assert widths[0] > 5 * widths[1] > 25 * widths[2]


def test_more_arms_make_every_interval_wider() -> None:
    rng = np.random.default_rng(1)
    models = answers(KINDS["helps"][0], 300, 1, rng)
    group = models.pop("group")
    alone, *_ = joint_gains(group, {"from_scratch": models["from_scratch"]}, bootstrap_samples=2000)
    among, *_ = joint_gains(group, models, bootstrap_samples=2000)
    width = [found.gain_interval[1] - found.gain_interval[0] for found in (alone, among)]
    assert width[0] < width[1] < 1.6 * width[0]


def test_kin_that_answers_alike_counts_as_one_image() -> None:
    rng = np.random.default_rng(2)
    group, other = rng.random(40) < 0.8, rng.random(40) < 0.6
    together = [f"kin{image // 5}" for image in range(200)]
    (repeated,) = joint_gains(np.repeat(group, 5), {"a": np.repeat(other, 5)}, together, bootstrap_samples=4000)
    (single,) = joint_gains(group, {"a": other}, bootstrap_samples=4000)
    assert repeated.gain_interval == pytest.approx(single.gain_interval, abs=0.01)


def test_models_over_different_images_are_refused() -> None:
    with pytest.raises(DataError, match="same images"):
        joint_gains(np.ones(3, dtype=bool), {"a": np.ones(2, dtype=bool)}, bootstrap_samples=100)


def comparison(**intervals: tuple[float, float]) -> SplitComparison:
    others = [
        ArmGain(name=name, accuracy=0.5, gain=(low + high) / 2, gain_interval=(low, high))
        for name, (low, high) in intervals.items()
    ]
    return SplitComparison(num_images=100, num_units=100, accuracy=0.5, others=others)


BETTER, UNSURE, WORSE = (0.02, 0.2), (-0.1, 0.1), (-0.2, -0.02)


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ({"from_scratch": BETTER, "subset_only": BETTER, "head_only": UNSURE, "pooled": UNSURE}, "helps"),
        ({"from_scratch": BETTER, "subset_only": BETTER, "head_only": UNSURE, "pooled": WORSE}, "helps"),
        ({"from_scratch": BETTER, "head_only": UNSURE}, "helps"),
        ({"from_scratch": BETTER, "subset_only": UNSURE, "head_only": BETTER}, "no_difference"),
        ({"from_scratch": UNSURE, "subset_only": BETTER}, "no_difference"),
        ({"head_only": BETTER}, "no_difference"),
        ({"from_scratch": BETTER, "subset_only": WORSE}, "hurts"),
        ({"from_scratch": BETTER, "subset_only": BETTER, "head_only": WORSE}, "hurts"),
        ({"from_scratch": WORSE}, "hurts"),
        ({"from_scratch": BETTER, "target_only": BETTER}, "helps"),
        ({"from_scratch": BETTER, "target_only": UNSURE}, "no_difference"),
        ({"from_scratch": BETTER, "target_only": WORSE}, "hurts"),
        ({"pooled": WORSE}, None),
        ({}, None),
    ],
)
def test_the_verdict_follows_its_rule(intervals: dict[str, tuple[float, float]], verdict: str | None) -> None:
    assert judge_transfer(comparison(**intervals)) == verdict


def test_without_test_images_there_is_no_verdict() -> None:
    none = np.zeros(0, dtype=bool)
    assert judge_transfer(compare_on_split(none, {"head_only": none}, [], bootstrap_samples=100, seed=0)) is None


def test_the_most_accurate_of_the_surely_better_models_is_chosen() -> None:
    found = choose_better(comparison(from_scratch=WORSE, subset_only=(-0.5, -0.3), head_only=(-0.9, 0.1)))
    assert found is not None and found.name == "subset_only"
    assert choose_better(comparison(from_scratch=UNSURE, subset_only=BETTER)) is None
    assert choose_better(None) is None


def test_what_a_subset_gains_is_told_by_split() -> None:
    before = {"val": np.array([False, False]), "test": np.zeros(0, dtype=bool)}
    after = {"val": np.array([True, True]), "test": np.zeros(0, dtype=bool)}
    found = gain_over("site", after, before, {"val": ["", ""], "test": []}, bootstrap_samples=100, seed=0)
    assert (found.validation_gain, found.validation_interval) == (1.0, (1.0, 1.0))
    assert (found.test_gain, found.test_interval) == (None, None)
