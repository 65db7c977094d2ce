import inspect
import pickle

import pytest

from orchestrator import errors
from orchestrator.errors import OrchestratorError

CLASSES = [member for _, member in inspect.getmembers(errors, inspect.isclass) if issubclass(member, OrchestratorError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_its_text(kind: type[OrchestratorError]) -> None:
    error = kind("freeze_depth must be at most 6", value=7, remedy="Lower freeze_depth.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "freeze_depth must be at most 6, got 7. Lower freeze_depth."
    assert (copy.rule, copy.value, copy.remedy) == (error.rule, error.value, error.remedy)


def test_an_error_holding_a_value_that_cannot_be_pickled_travels_as_its_text() -> None:
    error = OrchestratorError("a value must be plain", value=lambda: None)
    assert "<lambda>" in str(pickle.loads(pickle.dumps(error)))


def test_the_message_leaves_out_what_was_not_given() -> None:
    assert str(OrchestratorError("a run must have a name")) == "a run must have a name"
    assert str(OrchestratorError("a run must have a name", remedy="Give one.")) == "a run must have a name. Give one."
    assert str(OrchestratorError("a number must be positive", value=0)) == "a number must be positive, got 0"


def test_every_error_is_documented() -> None:
    assert all(kind.__doc__ for kind in CLASSES)
    assert len(CLASSES) > 10
