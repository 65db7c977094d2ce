import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.errors import DataError
from orchestrator.evaluation.intervals import bootstrap_interval, paired_gain


def test_the_interval_of_an_accuracy_has_the_quantiles_of_the_binomial() -> None:
    correct = np.repeat([True, False], [140, 60])
    low, high = bootstrap_interval(correct, 40_000, seed=0)
    exact = stats.binom(200, 0.7).ppf([0.025, 0.975]) / 200
    assert (low, high) == pytest.approx(exact, abs=0.0051)


def test_the_interval_of_distinct_values_agrees_with_resampling_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=50)
    resamples = np.random.default_rng(1).choice(values, size=(40_000, 50)).mean(axis=1)
    expected = np.quantile(resamples, [0.025, 0.975])
    assert bootstrap_interval(values, 40_000, seed=2) == pytest.approx(expected, abs=0.01)


def test_about_95_of_100_intervals_hold_the_true_accuracy() -> None:
    rng = np.random.default_rng(0)
    held = [
        low <= 0.7 <= high
        for seed in range(400)
        for low, high in [bootstrap_interval(rng.random(200) < 0.7, 1000, seed)]
    ]
    assert 0.91 < np.mean(held) < 0.98


@given(st.lists(st.booleans(), min_size=1, max_size=50), st.integers(0, 2**32 - 1))
def test_the_interval_stays_within_the_values_and_in_order(values: list[bool], seed: int) -> None:
    low, high = bootstrap_interval(values, 100, seed)
    assert min(values) <= low <= high <= max(values)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_same_seed_gives_the_same_interval_in_any_order_of_images(values: list[bool], random) -> None:
    shuffled = random.sample(values, len(values))
    assert bootstrap_interval(values, 100, 3) == bootstrap_interval(shuffled, 100, 3)


def test_chunks_of_many_distinct_values_fill_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(loc=5.0, size=100)
    whole = bootstrap_interval(values, 1000, seed=0)
    monkeypatch.setattr("orchestrator.evaluation.intervals._CHUNK_CELLS", 700)
    assert bootstrap_interval(values, 1000, seed=0) == pytest.approx(whole, rel=1e-12)


def test_units_are_drawn_whole_as_resampling_them_one_by_one_does() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(12), rng.integers(1, 9, size=12))
    values = rng.random(len(units)) < np.linspace(0.1, 0.9, 12)[units]
    members = [values[units == unit] for unit in range(12)]
    means = [np.concatenate([members[unit] for unit in rng.integers(12, size=12)]).mean() for _ in range(20_000)]
    found = bootstrap_interval(values, 40_000, 1, units)
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0, 2.0]]])
def test_values_that_have_no_mean_are_refused(values: object) -> None:
    with pytest.raises(DataError, match="one or more finite values"):
        bootstrap_interval(values, 100, 0)


def test_pairing_makes_a_small_steady_gain_certain_where_unpaired_accuracies_overlap() -> None:
    worse = np.repeat([True, False], [50, 50])
    better = worse.copy()
    better[50:58] = True
    gain, (low, high) = paired_gain(better, worse, 2000, seed=0)
    assert gain == pytest.approx(0.08)
    assert 0 < low < 0.08 < high
    assert bootstrap_interval(better, 2000, 0)[0] < bootstrap_interval(worse, 2000, 0)[1]


def test_the_gain_changes_sign_when_the_sides_are_swapped() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(80) < 0.8, rng.random(80) < 0.6
    gain, (low, high) = paired_gain(first, second, 20_000, seed=0)
    swapped, (swapped_low, swapped_high) = paired_gain(second, first, 20_000, seed=0)
    assert swapped == -gain
    assert (swapped_low, swapped_high) == pytest.approx((-high, -low), abs=0.013)


def test_equal_results_gain_exactly_nothing() -> None:
    correct = [True, False, True]
    assert paired_gain(correct, correct, 100, 0) == (0.0, (0.0, 0.0))


def test_results_over_different_images_are_not_paired() -> None:
    with pytest.raises(DataError, match="same images"):
        paired_gain([True, False], [True], 100, 0)
