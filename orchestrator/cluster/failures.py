"""Translates Ray's wrapped errors into the project's own, at one boundary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError, RayTaskError

from orchestrator.errors import OrchestratorError, TrainingError

_NAMES_AN_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise what `translate` makes of an error of Ray's or of a remote call."""
    try:
        yield
    except (RayError, OrchestratorError) as error:
        raise translate(error, what) from None


def translate(error: Exception, what: str) -> OrchestratorError:
    """Give the project's own error that a remote call ended with, or TrainingError naming the foreign one."""
    # Ray raises a class made of its own and the cause's; the plain cause prints and pickles as meant.
    own = _own_cause(error)
    if own is not None:
        return own
    if isinstance(error, RayTaskError):
        return TrainingError(f"{what} must not fail", value=_last_line(error), remedy=f"Its trace:\n{error}")
    return TrainingError(
        f"{what} must not lose its worker",
        value=_last_line(error),
        remedy="Look for a lack of memory or a lost node.",
    )


def _own_cause(error: BaseException) -> OrchestratorError | None:
    """Find the innermost error of the project in a chain of causes."""
    found: OrchestratorError | None = None
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OrchestratorError) and not isinstance(current, RayTaskError):
            found = current
        current = getattr(current, "cause", None) or current.__cause__
    return found


def _last_line(error: BaseException) -> str:
    """Give the line that names the error; Ray Data ends its messages with a wrapper's and advice."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    naming = [line for line in lines if _NAMES_AN_ERROR.match(line) and "UserCodeException" not in line]
    return naming[-1] if naming else lines[-1]
