import math

import pytest
from report_examples import a_configuration

from orchestrator.reporting import wording


@pytest.mark.parametrize(
    ("value", "text"), [(1e-3, "1e-3"), (2.5e-4, "2.5e-4"), (0.1, "1e-1"), (0, "0"), (9.96e-4, "1e-3"), (12.0, "1.2e1")]
)
def test_rates_are_short(value: float, text: str) -> None:
    assert wording.rate(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (45.4, "45 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_take_the_unit_that_fits(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999_600, "1.00 M"),
        (2_223_872, "2.22 M"),
        (30_000, "30.0 k"),
        (3.08e8, "308 M"),
        (5e16, "50000 T"),
    ],
)
def test_large_numbers_have_three_digits_and_a_letter(value: float, text: str) -> None:
    assert wording.magnitude(value) == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_unknown_is_a_dash(value: float | None) -> None:
    assert {wording.number(value), wording.percent(value), wording.points(value)} == {wording.ABSENT}


def test_an_absent_interval_takes_no_room() -> None:
    assert wording.percent_interval(None) == wording.points_interval(None) == ""


def test_gains_are_signed_points_and_nothing_has_no_sign() -> None:
    assert [wording.points(gain) for gain in (0.031, -0.031, 0.0, -0.0004)] == ["+3.1", "-3.1", "0.0", "0.0"]
    assert wording.points_interval((-0.01, 0.052)) == "[-1.0, +5.2]"


def test_counts_agree_with_their_noun() -> None:
    assert [wording.counted(n, "class") for n in (1, 2000)] == ["1 class", "2,000 classes"]


def test_long_lists_say_how_many_more_there_are() -> None:
    assert wording.shortened(["a", "b"], most=2) == "a, b"
    assert wording.shortened(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
    assert wording.shortened(["a", "b", "c"], most=1, separator="\n") == "a\nand 2 more"


def test_lists_read_as_prose() -> None:
    assert [wording.enumerated(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_recipe_names_what_was_searched() -> None:
    chosen = a_configuration(epochs=1)
    assert wording.recipe_lines(chosen) == ["depth 4", "rate 1e-3", "1 epoch"]
    assert wording.recipe_sentence(chosen) == "freeze depth 4, learning rate 1e-3 and 1 epoch"


def test_a_recipe_names_the_methods_that_have_an_effect() -> None:
    chosen = a_configuration(
        strategy="probe_then_finetune",
        head_share=0.5,
        unfreeze_every=3,
        mixing_alpha=0.4,
        label_smoothing=0.1,
        balanced=True,
        batch_size=64,
    )
    assert wording.method_lines(chosen) == [
        "strategy probe then finetune",
        "head share 0.5",
        "label smoothing 0.1",
        "balanced",
    ]
    assert wording.recipe_lines(chosen)[-1] == "balanced"


def test_a_recipe_names_the_augmentations_that_were_chosen_and_have_an_effect() -> None:
    chosen = a_configuration(flip=False, crop=0.1, randaugment=0, magnitude=15)
    assert wording.method_lines(chosen) == ["not flip", "crop 0.1", "randaugment 0"]
    assert wording.method_lines(a_configuration(randaugment=2, magnitude=15)) == ["randaugment 2", "magnitude 15"]


@pytest.mark.parametrize(
    ("weights", "text"),
    [((1.0, 0.5), "task weighting 1, 0.5"), ((("north", 2.0), ("south", 0.5)), "task weighting north 2, south 0.5")],
)
def test_fixed_weights_stand_with_the_heads_that_they_are_of(weights: tuple[object, ...], text: str) -> None:
    assert wording.method_lines(a_configuration(task_weighting=weights)) == [text]


def test_accuracies_are_percent_and_losses_are_nats() -> None:
    assert wording.metric_value(0.5, "val_accuracy") == "50.0%"
    assert wording.metric_value(0.5, "val_loss") == "0.500"
