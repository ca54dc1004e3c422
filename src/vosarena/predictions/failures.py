"""Why a sequence failed: a class for the table, a sentence for users, and whether trying again can help."""

import errno
import traceback
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from vosarena.base.errors import DataError, Stopped, TrackerError, VosarenaError


class FailureClass(StrEnum):
    """Kinds of failure, as they are written in the column `class` of failures.csv (docs/cluster.md)."""

    BAD_DATA = "bad data"
    TRACKER = "tracker"
    UNEXPECTED = "unexpected"
    OUT_OF_MEMORY = "out of memory"
    DISK_FULL = "disk full"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node failure"
    NOT_REACHED = "not reached"


DIED_SILENTLY = "the process died without an error message (out of memory, killed, or node failure)"


def classify(error: BaseException, tracker: str = "") -> FailureClass:
    """Return the class of an error, which may follow from an error that it was raised from.

    Args:
        error: The error that ended the attempt.
        tracker: Name of the tracker. For `file.py:Class`, errors raised in that file are the tracker's.
    """
    for item in _chain(error):
        if isinstance(item, Stopped):
            return FailureClass.TIMEOUT if item.timed_out else FailureClass.CANCELLED
        if isinstance(item, OSError) and item.errno in (errno.ENOSPC, errno.EDQUOT):
            return FailureClass.DISK_FULL
        if is_out_of_memory(item):
            return FailureClass.OUT_OF_MEMORY
    if isinstance(error, DataError):
        return FailureClass.BAD_DATA
    if isinstance(error, TrackerError) or _line_in(tracker, error):
        return FailureClass.TRACKER
    return FailureClass.UNEXPECTED


def reason_of(error: BaseException, tracker: str = "") -> str:
    """Return the sentence about an error, without the name of its sequence.

    An error that is not one of this library's is shown with its class, and with its line where that is in the file of
    the tracker `file.py:Class`.
    """
    if isinstance(error, VosarenaError):
        return error.reason
    if isinstance(error, Stopped):
        return str(error)
    line = _line_in(tracker, error)
    kind = type(error).__name__
    sentence = f"{kind}: {error}" if str(error) else kind
    return f"{sentence} ({line})" if line else sentence


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of the host or of a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch's error is recognised by name, because torch is not imported for trackers that do not use it.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "DefaultCPUAllocator" in str(error)


def is_deterministic(error: BaseException) -> bool:
    """Return whether the same input gives the same failure again. Errors of a disk or file server may go away."""
    io_errors = [item for item in _chain(error) if isinstance(item, OSError) and item.errno is not None]
    return classify(error) == FailureClass.BAD_DATA and not io_errors


def _line_in(tracker: str, error: BaseException) -> str:
    """Return the line of the file of `file.py:Class` that raised an error, as `file.py:7`, or an empty text."""
    file = Path(tracker.rpartition(":")[0]).absolute()
    for item in _chain(error):
        frames = traceback.extract_tb(item.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == file]
        if lines:
            return f"{file.name}:{lines[-1]}"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
