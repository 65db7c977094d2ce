import numpy as np
import pytest
from evaluation_examples import RECIPE
from pydantic import ValidationError

from orchestrator.evaluation.answers import pack, unpack
from orchestrator.records import BaselineResult, PackedAnswers


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_answers_come_back_from_a_bit_each(count: int) -> None:
    correct = np.random.default_rng(count).random(count) < 0.6
    packed = PackedAnswers.model_validate_json(pack(correct).model_dump_json())
    np.testing.assert_array_equal(unpack(packed), correct)
    assert len(packed.bits) <= count / 6 + 4


@pytest.mark.parametrize("count", [0, 3, 8, 21])
def test_records_that_hold_a_list_are_read(count: int) -> None:
    correct = np.random.default_rng(count).random(count) < 0.6
    fields = {"group": "low", "name": "fixed_rule", "hyperparameters": RECIPE, "seconds": 1.0}
    read = BaselineResult.model_validate({**fields, "correct": correct.tolist()})
    assert read.correct == pack(correct)
    assert BaselineResult.from_json(read.to_json(), source="a test") == read
    assert BaselineResult.model_validate({**fields, "correct": None}).correct is None


def test_other_bits_than_were_counted_are_refused() -> None:
    with pytest.raises(ValidationError, match="9 answers must be in 2 bytes"):
        PackedAnswers(count=9, bits=pack(np.ones(8, dtype=np.bool_)).bits)
