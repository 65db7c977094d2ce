"""Tells failures of a store, which may pass, from those of one file, and asks again where they may."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_random

from orchestrator.errors import UnavailableError

T = TypeVar("T")

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The longest pauses between attempts: with what pyarrow tries itself, a store has about a minute."""

# Of a disk, a network mount or this process: none of them says anything about what is in the file.
_PASSING_NUMBERS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_PASSING_KINDS = (ConnectionError, TimeoutError, InterruptedError, BlockingIOError)

# pyarrow words the errors of S3 so; it gives a status only with the code UNKNOWN.
_OF_S3 = re.compile(r"AWS Error (?P<code>\w+)(?: \(HTTP status (?P<status>\d+)\))?")
_CODES_OF_ONE_FILE = frozenset(
    {"ACCESS_DENIED", "INVALID_OBJECT_STATE", "NO_SUCH_BUCKET", "NO_SUCH_KEY", "RESOURCE_NOT_FOUND"}
)
_STATUSES_OF_ONE_FILE = frozenset({"403", "404", "410", "416"})

# Of Google's store: what is the fault of one file has the number of an error as well.
_OF_GCS = "google::cloud::Status("


def is_passing(error: BaseException) -> bool:
    """Tell whether a failed access says nothing about the file: the store, the network or the machine failed.

    A file that is not there, may not be read, or does not hold what it should fails for itself. An answer of a store
    that is not known for one of these is the store's: an expired key, too, refuses every file.
    """
    if isinstance(error, (*_PASSING_KINDS, MemoryError)):
        return True
    if not isinstance(error, OSError | pa.ArrowException) or isinstance(error, pa.ArrowInvalid):
        return False
    number = getattr(error, "errno", None)
    if number is not None:
        return number in _PASSING_NUMBERS
    answer = _OF_S3.search(str(error))
    if answer is not None:
        return answer["code"] not in _CODES_OF_ONE_FILE and answer["status"] not in _STATUSES_OF_ONE_FILE
    return _OF_GCS in str(error)


def patiently(work: Callable[[], T], *, what: str) -> T:
    """Do some work that reads or writes `what`, again after a pause where the store fails.

    Other failures are raised as they are. Raises UnavailableError when the store goes on failing.
    """
    asking = Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_attempt(len(PAUSES_S) + 1),
        # Drawn, so that workers who were refused together do not come back together.
        wait=wait_chain(*(wait_random(pause_s / 2, pause_s) for pause_s in PAUSES_S)),
        reraise=True,
    )
    try:
        return asking(work)
    except (OSError, pa.ArrowException) as error:
        # Memory that is short again and again may be what a damaged file asks for.
        if not is_passing(error) or isinstance(error, MemoryError):
            raise
        raise UnavailableError(
            "reads and writes must get through",
            value=f"{len(PAUSES_S) + 1} failures in a row at {what}",
            remedy=f"Run the same command again when the store is well. The last: {first_line(error)[:300]}",
        ) from error


def first_line(error: BaseException) -> str:
    """Give the first line of what an error says, its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
