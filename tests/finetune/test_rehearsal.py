"""Epochs are tried on a part of the samples, two trainings in turn, and compared by what a whole training takes."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from finetune_examples import a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.rehearsal import (
    EpochTimes,
    Rehearsal,
    SampleStream,
    rehearse_in_turn,
    relative_cost,
    scaled_companion,
    spread,
)


def a_clock(*readings: float) -> Callable[[], float]:
    left = iter(readings)
    return lambda: next(left)


def a_rehearsal(new_classifier: Callable[[], Classifier], count: int = 12, **changes: object) -> Rehearsal:
    samples = some_samples(count)
    return Rehearsal(
        new_classifier=new_classifier,
        spec=a_spec(),
        train=samples,
        validation=samples,
        hyperparameters=some_hyperparameters(**changes),
        settings=some_settings(batch_norm="train"),
    )


def test_the_first_epoch_is_timed_from_the_start_and_the_second_alone(
    tiny_classifier: Callable[..., Classifier],
) -> None:
    rehearsal = a_rehearsal(tiny_classifier, freeze_depth=0, epochs=9, patience=1, strategy="gradual")
    assert rehearsal.times(a_clock(10.0, 17.0, 19.0)) == EpochTimes(first_s=7.0, later_s=2.0)
    # Each sample is taken twice in training, and twice to be judged.
    assert len(rehearsal.train.taken) == 4 * 12


def test_what_frozen_stages_give_is_computed_within_the_first_epoch(tiny_classifier: Callable[..., Classifier]) -> None:
    rehearsal = a_rehearsal(tiny_classifier, freeze_depth=2, epochs=1)
    taken = rehearsal.train.taken

    def clock() -> float:
        return float(len(taken))

    assert rehearsal.times(clock) == EpochTimes(first_s=24.0, later_s=0.0)


def test_a_single_pass_has_no_later_epoch(tiny_classifier: Callable[..., Classifier]) -> None:
    rehearsal = a_rehearsal(tiny_classifier, freeze_depth=3, head="prototype", epochs=5)
    assert rehearsal.times(a_clock(1.0, 4.0)) == EpochTimes(first_s=3.0, later_s=0.0)


def test_a_training_that_streams_its_samples_computes_frozen_stages_every_epoch(
    tiny_classifier: Callable[..., Classifier],
) -> None:
    samples, validation = some_samples(30), some_samples(6)
    stream = SampleStream(samples=samples, batch_size=8)
    assert stream.num_samples == 30
    assert [len(labels) for _, labels in stream.epoch(1)] == [10, 10, 10]
    Rehearsal(
        new_classifier=tiny_classifier,
        spec=a_spec(),
        train=stream,
        validation=validation,
        hyperparameters=some_hyperparameters(freeze_depth=2),
        settings=some_settings(batch_norm="train"),
    ).times()
    # Those above the batches that were looked at here are of the two epochs.
    assert len(samples.taken) == 30 + 2 * 30 and len(validation.taken) == 6


def times_of(name: str, seconds: Iterator[float], order: list[str]) -> Callable[[], EpochTimes]:
    def measure() -> EpochTimes:
        order.append(name)
        later = next(seconds)
        return EpochTimes(first_s=2 * later, later_s=later)

    return measure


def test_trainings_take_turns_and_one_slow_turn_changes_nothing() -> None:
    order: list[str] = []
    one = times_of("one", iter([1.0, 50.0, 1.0]), order)
    other = times_of("other", iter([9.0, 4.0, 4.0]), order)
    found = rehearse_in_turn(one, other, least_s=0.0)
    assert order == ["one", "other", "other", "one", "one", "other"]
    assert found == (EpochTimes(first_s=2.0, later_s=1.0), EpochTimes(first_s=8.0, later_s=4.0))


@pytest.mark.parametrize(("seconds", "turns"), [(1.0, 3), (0.03, 12), (0.0001, 15)])
def test_short_epochs_are_tried_until_both_trainings_were_measured_long_enough(seconds: float, turns: int) -> None:
    order: list[str] = []
    rounds: list[None] = []
    rehearse_in_turn(
        lambda: EpochTimes(first_s=2.0, later_s=1.0),
        times_of("short", iter([seconds] * 15), order),
        least_s=1.0,
        on_round=lambda: rounds.append(None),
    )
    assert len(order) == len(rounds) == turns


@pytest.mark.parametrize(
    ("one", "other", "epochs", "cost"),
    [
        # Equal epochs cost the same; three times dearer ones three times as much.
        ((1.0, 1.0), (1.0, 1.0), 8, 1.0),
        ((3.0, 3.0), (1.0, 1.0), 8, 3.0),
        # The frozen pass of 4 seconds is half an epoch of each of 8: it is paid once.
        ((3.0, 3.0), (5.0, 1.0), 8, 2.0),
        ((3.0, 3.0), (5.0, 1.0), 1, 0.6),
        # What any training spends at its start is nobody's.
        ((3.5, 3.0), (5.5, 1.0), 8, 2.0),
        ((9.0, 3.0), (2.0, 1.0), 8, 3.0),
        # One pass, and nothing after it.
        ((4.5, 4.0), (2.5, 0.0), 1, 2.0),
    ],
)
def test_an_epoch_is_set_against_the_average_one_of_the_other_with_its_frozen_pass(
    one: tuple[float, float], other: tuple[float, float], epochs: int, cost: float
) -> None:
    first, second = (EpochTimes(first_s=times[0], later_s=times[1]) for times in (one, other))
    assert relative_cost(first, second, epochs=epochs) == pytest.approx(cost)


def test_samples_are_spread_evenly_and_one_is_always_left() -> None:
    samples = some_samples(10)
    assert spread(samples, 5).keys.tolist() == [0, 2, 4, 6, 8]
    assert len(spread(samples, 0)) == 1 and len(spread(samples, 99)) == 10
    np.testing.assert_array_equal(spread(samples, 5).take(np.array([4])), samples.take(np.array([8])))


def test_a_companion_shrinks_with_its_target() -> None:
    companion = Companion(samples=some_samples(40), batch_share=0.75, weight=2.0)
    part = scaled_companion(companion, 0.25)
    assert len(part.samples) == 10 and (part.batch_share, part.weight) == (0.75, 2.0)


def test_what_is_tried_in_place_of_a_streamed_source_is_a_stream_of_the_part_that_is_held() -> None:
    part = scaled_companion(Companion(samples=some_samples(40)), 0.25, is_streamed=True)
    assert part.stream is not None and part.stream.count_labels().num_samples == len(part.samples) == 10
    pieces = part.stream.draws(7)
    pixels, labels = next(pieces)
    further, _ = next(pieces)
    order = (7 + np.arange(len(pixels) + len(further))) % 10
    np.testing.assert_array_equal(np.concatenate([pixels, further]), part.samples.take(order))
    assert labels.tolist() == part.samples.labels[order[: len(labels)]].tolist()


def test_a_training_of_one_pass_costs_that_pass_however_long_the_start_of_the_other_takes() -> None:
    one, prototypes = EpochTimes(first_s=2.0, later_s=1.0), EpochTimes(first_s=0.5, later_s=0.0)
    assert relative_cost(one, prototypes, epochs=1) == 2.0
