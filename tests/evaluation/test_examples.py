import numpy as np
import pytest
from evaluation_examples import a_prediction_table

from orchestrator.evaluation.examples import choose_examples, confident_answers, confident_mistakes
from orchestrator.evaluation.predictions import Predictions


def predictions_of(rows: list[tuple[str, int, list[float]]]) -> Predictions:
    return Predictions(
        ids=[identity for identity, _, _ in rows],
        subsets=["north"] * len(rows),
        together=[""] * len(rows),
        truth=np.array([truth for _, truth, _ in rows], dtype=np.int64),
        probabilities=np.array([probabilities for _, _, probabilities in rows], dtype=np.float32).reshape(-1, 3),
    )


ROWS = [
    ("e", 0, [0.9, 0.1, 0.0]),  # right
    ("d", 1, [0.7, 0.2, 0.1]),  # wrong
    ("c", 2, [0.0, 0.9, 0.1]),  # wrong, the most confident
    ("b", 0, [0.2, 0.7, 0.1]),  # wrong, as confident as d
    ("a", 0, [0.9, 0.0, 0.1]),  # right, as confident as e
    ("f", 2, [0.0, 0.2, 0.8]),  # right, of another class
    ("g", 0, [0.85, 0.1, 0.05]),  # right, of a class that has a more confident one
]


def test_mistakes_come_by_their_confidence_and_then_by_id() -> None:
    predictions = predictions_of(ROWS)
    assert [predictions.ids[at] for at in confident_mistakes(predictions, 5)] == ["c", "b", "d"]
    assert [predictions.ids[at] for at in confident_mistakes(predictions, 2)] == ["c", "b"]


def test_right_answers_are_of_distinct_classes() -> None:
    predictions = predictions_of(ROWS)
    assert [predictions.ids[at] for at in confident_answers(predictions, 5)] == ["a", "f"]
    assert [predictions.ids[at] for at in confident_answers(predictions, 1)] == ["a"]


def test_the_choice_does_not_depend_on_the_order_of_images() -> None:
    rows = [(f"{index:03d}", index % 3, list(row)) for index, row in enumerate(a_prediction_table(60).probabilities)]
    # Few decimals make ties, of which the id decides.
    rows = [(identity, truth, np.round(row, 1).tolist()) for identity, truth, row in rows]
    forwards, backwards = predictions_of(rows), predictions_of(rows[::-1])
    for choose in (confident_mistakes, confident_answers):
        found = [forwards.ids[at] for at in choose(forwards, 6)]
        assert found and found == [backwards.ids[at] for at in choose(backwards, 6)]


@pytest.mark.parametrize("size", [1, 7, 60, 100])
def test_parts_are_chosen_from_as_the_whole_is(size: int) -> None:
    table = a_prediction_table(60)
    whole = predictions_of(
        [
            (f"{index * 7 % 60:03d}", int(truth), np.round(row, 1).tolist())
            for index, (truth, row) in enumerate(zip(table.truth, table.probabilities, strict=True))
        ]
    )
    parts = [whole.at(np.arange(start, min(start + size, 60))) for start in range(0, 60, size)]
    expected = confident_mistakes(whole, 3) + confident_answers(whole, 3)
    chosen, positions = choose_examples(iter(parts), 3)
    assert positions == expected
    assert list(chosen.ids) == [whole.ids[position] for position in expected]


def test_chosen_predictions_are_what_they_are_chosen_for() -> None:
    predictions = a_prediction_table(200, num_classes=5)
    confidence = predictions.probabilities.max(axis=1)
    mistakes, answers = confident_mistakes(predictions, 4), confident_answers(predictions, 4)
    assert len(mistakes) == len(answers) == 4
    assert not predictions.correct[mistakes].any() and predictions.correct[answers].all()
    assert (
        confidence[mistakes].min() >= np.delete(confidence, mistakes)[~np.delete(predictions.correct, mistakes)].max()
    )
    assert len(set(predictions.truth[answers].tolist())) == 4
    assert (np.diff(confidence[mistakes]) <= 0).all() and (np.diff(confidence[answers]) <= 0).all()


def test_there_is_nothing_to_choose_where_there_is_nothing() -> None:
    nothing, perfect = predictions_of([]), predictions_of(ROWS[:1])
    assert confident_mistakes(nothing, 3) == confident_answers(nothing, 3) == []
    assert confident_mistakes(perfect, 3) == []
    assert confident_answers(perfect, 0) == []
    assert choose_examples([nothing], 3)[1] == []
