from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import SplitFractions
from orchestrator.data.identity import assign_split, image_digest, parse_split, split_key, stable_fraction
from orchestrator.errors import DataError

KEYS = st.lists(st.text(max_size=12), unique=True, max_size=40)
SEEDS = st.integers(min_value=0, max_value=2**32 - 1)


@given(st.text(), SEEDS)
def test_a_fraction_is_at_least_zero_and_below_one(key: str, seed: int) -> None:
    assert 0.0 <= stable_fraction(key, seed) < 1.0


def test_a_fraction_stays_the_same_over_versions_and_machines() -> None:
    assert stable_fraction("photo/dog/001.jpg", 0) == 0.317455726827374


def test_two_seeds_give_unrelated_fractions() -> None:
    pairs = [(stable_fraction(str(key), 0), stable_fraction(str(key), 1)) for key in range(2000)]
    agreeing = sum((first < 0.5) == (second < 0.5) for first, second in pairs)
    assert 900 < agreeing < 1100


@given(KEYS, SEEDS)
def test_splits_do_not_depend_on_which_other_samples_there_are(keys: list[str], seed: int) -> None:
    fractions = SplitFractions(val=0.3, test=0.3)
    alone = {key: assign_split(key, fractions, seed) for key in keys}
    shuffled = random.Random(seed).sample(keys, len(keys))
    among_others = {key: assign_split(key, fractions, seed) for key in [*shuffled, "one more", "another"]}
    assert all(among_others[key] == split for key, split in alone.items())


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.15), (0.0, 0.4), (0.5, 0.0), (0.0, 0.0)])
def test_shares_of_the_splits_are_near_the_fractions(val: float, test: float) -> None:
    fractions = SplitFractions(val=val, test=test)
    splits = [assign_split(f"sample-{number}", fractions, 7) for number in range(20_000)]
    # Four standard deviations of a share of 20,000 are below 0.0142.
    assert splits.count("val") / 20_000 == pytest.approx(val, abs=0.0142 if val else 0)
    assert splits.count("test") / 20_000 == pytest.approx(test, abs=0.0142 if test else 0)


@given(st.text(), SEEDS)
def test_changing_the_share_for_validation_leaves_the_test_split_alone(key: str, seed: int) -> None:
    before = assign_split(key, SplitFractions(val=0.1, test=0.2), seed)
    after = assign_split(key, SplitFractions(val=0.5, test=0.2), seed)
    assert (before == "test") == (after == "test")


@given(st.text(), st.text(min_size=1))
def test_a_shared_value_never_collides_with_an_identity(identity: str, together: str) -> None:
    assert split_key(identity, together) not in (split_key(together, None), split_key(f"together:{together}", None))
    assert split_key(identity, together) == split_key("another", together)


@pytest.mark.parametrize("missing", [None, ""])
def test_a_sample_without_a_shared_value_goes_by_its_identity(missing: str | None) -> None:
    assert split_key("a", missing) != split_key("b", missing)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"), ("Training", "train"), (" TRAIN ", "train"), ("val", "val"), ("valid", "val"),
        ("Validation", "val"), ("dev", "val"), ("test", "test"), ("TESTING", "test"),
    ],
)  # fmt: skip
def test_usual_names_of_splits_are_understood(text: str, split: str) -> None:
    assert parse_split(text) == split


@pytest.mark.parametrize("text", ["", "holdout", "trainer", "0"])
def test_any_other_name_of_a_split_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match="train, val or test"):
        parse_split(text)


def test_the_digest_of_an_image_is_of_its_bytes_alone() -> None:
    assert image_digest(b"same") == image_digest(bytes(bytearray(b"same")))
    assert image_digest(b"same") != image_digest(b"sane")
    assert len(image_digest(b"")) == 32
