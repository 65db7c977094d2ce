import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_curves import SEARCHES

from orchestrator.search.prospects import LEAST_TRIALS, chance_of_gain

LENGTHS = (8, 16, 32)


def chance(values: object, *, further: int = 10, least_gain: float = 0.02) -> float:
    found = chance_of_gain(np.asarray(values, dtype=float).tolist(), further=further, least_gain=least_gain)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def forecasts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By kind of search: the chances stated after the first trials, and whether as many again brought a gain."""
    rng = np.random.default_rng(5)
    found = {}
    for kind, draw in SEARCHES.items():
        searches = [draw(rng, length) for length in LENGTHS for _ in range(45)]
        stated = [chance(s.first, further=len(s.again), least_gain=s.least_gain) for s in searches]
        found[kind] = np.array(stated), np.array([s.gains for s in searches])
    return found


def test_stated_chances_match_how_often_searches_gain(forecasts: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    stated = np.concatenate([found for found, _ in forecasts.values()])
    gained = np.concatenate([found for _, found in forecasts.values()])
    for low in (0.0, 0.2, 0.4):
        chosen = (stated >= low) & (stated < low + 0.2)
        # Right to within 0.1, and what so few draws leave open.
        error = 2 * np.sqrt(gained[chosen].var() / chosen.sum())
        assert gained[chosen].mean() == pytest.approx(stated[chosen].mean(), abs=0.1 + error)
    assert (stated >= 0.6).mean() < 0.01


def test_chances_are_right_for_each_kind_of_search(forecasts: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for stated, gained in forecasts.values():
        assert stated.mean() == pytest.approx(gained.mean(), abs=0.12)


def test_a_search_that_only_meets_noise_is_promised_little(forecasts: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    saturated, learning = forecasts["saturated"][0], forecasts["learning"][0]
    assert saturated[-45:].mean() < 0.15 < learning[:45].mean() / 1.5
    assert saturated[-45:].mean() < learning[-45:].mean()


def test_exchangeable_trials_gain_as_records_do() -> None:
    # Of n + m draws without ties the best is among the last m with chance m / (n + m).
    rng = np.random.default_rng(2)
    for further in (4, 12, 36):
        stated = [chance(rng.normal(size=12), further=further, least_gain=1e-6) for _ in range(50)]
        assert np.mean(stated) == pytest.approx(further / (12 + further), abs=0.08)


def test_chances_above_two_fifths_are_not_far_too_high() -> None:
    rng = np.random.default_rng(17)
    searches = [draw(rng, length) for draw in SEARCHES.values() for length in (5, 8) for _ in range(300)]
    stated = np.array([chance(s.first, further=len(s.again), least_gain=s.least_gain) for s in searches])
    gained = np.array([s.gains for s in searches])[stated >= 0.4]
    assert len(gained) > 40
    error = 2 * np.sqrt(gained.var() / len(gained))
    assert gained.mean() == pytest.approx(stated[stated >= 0.4].mean(), abs=0.05 + error)


def test_one_more_trial_promises_a_share_of_what_as_many_again_do() -> None:
    rng = np.random.default_rng(23)
    searches = [draw(rng, 12) for draw in SEARCHES.values() for _ in range(400)]
    of_next = [chance(s.first, further=1, least_gain=s.least_gain) for s in searches]
    gained = [bool(s.again[0] > s.first.max() + s.least_gain) for s in searches]
    assert np.mean(of_next) == pytest.approx(np.mean(gained), abs=0.02)


def test_a_curve_that_rises_promises_more_than_the_same_values_in_no_order() -> None:
    rising = 0.5 + 0.02 * np.arange(12)
    shuffled = np.random.default_rng(0).permutation(rising)
    assert chance(rising, further=12) > 1.4 * chance(shuffled, further=12)


curves = st.lists(st.integers(0, 100), min_size=LEAST_TRIALS, max_size=30).map(lambda hits: np.array(hits) / 100)


@settings(max_examples=30)
@given(curves, st.integers(1, 50))
def test_more_trials_promise_no_less_and_a_larger_gain_no_more(values: np.ndarray, further: int) -> None:
    found = chance(values, further=further)
    assert 0.0 <= found <= chance(values, further=further + 5) + 1e-12 <= 1.0 + 1e-9
    tail = np.append(values, values.max() + 0.1)
    assert chance(tail, further=further, least_gain=0.001) > chance(tail, further=further, least_gain=0.2)


def test_the_unit_of_the_metric_does_not_matter() -> None:
    values = np.random.default_rng(1).uniform(0.4, 0.9, 20)
    assert chance(values, least_gain=0.02) == pytest.approx(chance(7 - 3 * (1 - values), least_gain=0.06))


def test_fewer_than_four_trials_tell_nothing() -> None:
    assert chance_of_gain([0.1, 0.5, 0.9], further=10, least_gain=0.01) is None
    assert chance_of_gain([0.1, 0.5, 0.9, 0.7], further=10, least_gain=0.01) is not None


def test_equal_values_and_thousands_of_trials_are_no_trouble() -> None:
    assert 0 < chance([0.8] * 8, further=8) < 0.4
    assert 0 < chance(np.random.default_rng(0).normal(size=5000), further=5000, least_gain=1e-9) < 1
