"""What is added up says of any number of images what paired results say of each, in whatever order it comes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from evaluation_examples import a_prediction_table, paired

from orchestrator.errors import DataError
from orchestrator.evaluation import paired_answers, parts, unit_buckets
from orchestrator.evaluation.intervals import bootstrap_interval, paired_gain
from orchestrator.evaluation.paired_answers import PairedAnswers, add_up, count_units
from orchestrator.evaluation.predictions import Predictions

SAMPLES, SEED = 300, 3


def some_images(num_images: int = 120, images_of_one_kin: int = 0) -> Predictions:
    """Make predictions beside two baselines; every seventh image is alone."""
    rng = np.random.default_rng(1)
    table = a_prediction_table(num_images, images_of_one_kin=images_of_one_kin)
    together = [name if number % 7 else "" for number, name in enumerate(table.together)]
    answers = {"fixed_rule": rng.random(num_images) < 0.5, "head_only": rng.random(num_images) < 0.7}
    return Predictions(
        ids=table.ids,
        subsets=table.subsets,
        together=together,
        truth=table.truth,
        probabilities=table.probabilities,
        baselines=answers,
    )


def in_parts(images: Predictions, size: int) -> list[PairedAnswers]:
    starts = range(0, len(images), size)
    return [paired(images.at(np.arange(start, min(start + size, len(images))))) for start in starts]


def numbers(answers: PairedAnswers) -> list[object]:
    found: list[object] = [answers.num_images, answers.accuracy]
    for name in answers.others:
        found += [answers.accuracy_of(name), answers.accuracy_interval(name, SAMPLES, SEED)]
        found.append(answers.gain_over(name, SAMPLES, SEED))
    return found


@pytest.mark.parametrize("images_of_one_kin", [0, 1, 5])
@pytest.mark.parametrize("size", [1, 17, 200])
def test_every_number_is_that_of_the_images_to_the_bit(
    size: int, images_of_one_kin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paired_answers, "PART_ROWS", 50)
    images = some_images(images_of_one_kin=images_of_one_kin)
    found = add_up(in_parts(images, size))
    assert (found.num_images, found.accuracy) == (120, images.correct.mean())
    for name, correct in images.baselines.items():
        assert found.accuracy_of(name) == correct.mean()
        assert found.accuracy_interval(name, SAMPLES, SEED) == bootstrap_interval(correct, SAMPLES, SEED, images.units)
        assert found.gain_over(name, SAMPLES, SEED) == paired_gain(images.correct, correct, SAMPLES, SEED, images.units)


@pytest.mark.parametrize("most", [1000, 60, 0])
def test_the_order_of_adding_changes_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sums of kin and of their buckets meet, whichever part goes beyond the bound.
    monkeypatch.setattr(paired_answers, "MOST_RANKED_IMAGES", most)
    monkeypatch.setattr(unit_buckets, "NUM_BUCKETS", 8)
    cut = in_parts(some_images(images_of_one_kin=3), 40)
    assert len(cut) == 3
    found = [numbers(add_up(order)) for order in permutations(cut)]
    found += [numbers(cut[0] + (cut[1] + cut[2])), numbers(paired(some_images(images_of_one_kin=3)))]
    assert all(other == found[0] for other in found)


def test_more_images_than_are_told_apart_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_answers, "MOST_RANKED_IMAGES", 50)
    monkeypatch.setattr(unit_buckets, "NUM_BUCKETS", 16)
    sizes = []
    for num_images in (1000, 4000):
        found = add_up(in_parts(some_images(num_images, images_of_one_kin=2), 100))
        sizes.append(sum(part.nbytes for part in (found.alone, found.counts, found.keys, found.kin)))
        assert len(found.keys) == 16 and len(found.alone) <= 8
        assert found.num_images == num_images
    assert sizes[0] == sizes[1]


def test_buckets_keep_the_width_of_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_answers, "MOST_RANKED_IMAGES", 50)
    monkeypatch.setattr(unit_buckets, "NUM_BUCKETS", 512)
    images = some_images(8000, images_of_one_kin=4)
    _, (low, high) = paired(images).gain_over("fixed_rule", 2000, SEED)
    _, expected = paired_gain(images.correct, images.baselines["fixed_rule"], 2000, SEED, images.units)
    assert (low, high) == pytest.approx(expected, abs=(expected[1] - expected[0]) / 10)


def test_images_alone_are_told_apart_by_answers_however_many_models_there_are() -> None:
    rng = np.random.default_rng(0)
    correct, others = rng.random(300) < 0.7, {f"model{number}": rng.random(300) < 0.5 for number in range(70)}
    found = PairedAnswers.of(correct, others, [""] * 300)
    assert found.counts.sum() == 300 and len(np.unique(found.alone, axis=0)) == len(found.alone)
    assert found.gain_over("model69", SAMPLES, SEED) == paired_gain(correct, others["model69"], SAMPLES, SEED)


def test_some_of_the_others_stand_as_if_they_were_all() -> None:
    images = some_images(images_of_one_kin=3)
    alone = PairedAnswers.of(images.correct, {"head_only": images.baselines["head_only"]}, images.together)
    assert numbers(paired(images).over(["head_only"])) == numbers(alone)


def test_answers_of_other_models_or_lengths_are_refused() -> None:
    one, other = (PairedAnswers.of(np.ones(2, bool), {name: np.ones(2, bool)}, ["", ""]) for name in "ab")
    with pytest.raises(DataError, match="with their like alone"):
        one + other
    with pytest.raises(DataError, match="same images"):
        PairedAnswers.of(np.ones(2, bool), {}, [""])
    with pytest.raises(DataError, match="one or more images"):
        PairedAnswers.of(np.ones(0, bool), {"a": np.ones(0, bool)}, []).gain_over("a", SAMPLES, SEED)


def test_what_is_drawn_as_one_is_counted() -> None:
    assert [count_units(names) for names in ([], ["", ""], ["a", "", "a", "b"])] == [0, 2, 3]


def test_parts_are_no_larger_than_what_reads_them() -> None:
    assert paired_answers.PART_ROWS == parts.PART_ROWS < paired_answers.MOST_RANKED_IMAGES
