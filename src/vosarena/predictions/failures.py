"""Why a sequence failed: a class for the table, and whether trying again can help."""

import contextlib
import errno
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from vosarena.base.errors import CANCELLED, TIMEOUT, DataError, Stopped, TrackerError, VosarenaError, beside

BAD_DATA, TRACKER, UNEXPECTED = "bad data", "tracker", "unexpected"
OUT_OF_MEMORY, DISK_FULL = "out of memory", "disk full"
PREEMPTED, NODE_FAILURE = "preempted", "node failure"
NOT_REACHED = "not reached"

SILENT = "the process ended without a word: out of memory, killed by hand, or its node went down"
_NAMED = 3  # sequences of one reason
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE = 30.0  # seconds that a job may need before this library runs in it


def classify(error: BaseException, tracker: str = "") -> str:
    """The class of an error, from the error itself or what it was raised from. tracker: its own code, `file.py:Class`,
    makes a fault the tracker's."""
    for item in _chain(error):
        if isinstance(item, Stopped):
            return item.kind
        if isinstance(item, OSError) and item.errno in (errno.ENOSPC, errno.EDQUOT):
            return DISK_FULL
        if is_out_of_memory(item):
            return OUT_OF_MEMORY
    if isinstance(error, DataError):
        return BAD_DATA
    return TRACKER if isinstance(error, TrackerError) or _place_in(tracker, error) else UNEXPECTED


def reason_of(error: BaseException, tracker: str = "", sequence: str = "") -> str:
    """The sentence of a known error; of any other its class too and, where tracker is `file.py:Class`, its place.

    sequence: its name stands beside the reason and is left out in it.
    """
    if isinstance(error, VosarenaError | Stopped):
        return beside(sequence, error)
    place = _place_in(tracker, error)
    words = ": ".join(filter(None, [type(error).__name__, str(error)]))
    return words + (f" ({place})" if place else "")


def _place_in(tracker: str, error: BaseException) -> str:
    """The line of `file.py:Class` that an error comes from, as `file.py:7`, or nothing."""
    file = Path(tracker.rpartition(":")[0]).absolute()
    for item in _chain(error):
        frames = traceback.extract_tb(item.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == file]
        if lines:
            return f"{file.name}:{lines[-1]}"
    return ""


def few_of(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the host or of a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch's by name: it is not imported for a tracker that does without it.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "DefaultCPUAllocator" in str(error)


def is_final(error: BaseException) -> bool:
    """Whether the same bytes give the same failure again. Not so for what a disk or file server did not give."""
    io_errors = [item for item in _chain(error) if isinstance(item, OSError) and item.errno is not None]
    return classify(error) == BAD_DATA and not io_errors


@contextmanager
def stopped_by_signals(minutes: float | None = None) -> Iterator[None]:
    """Raise Stopped in the main thread when this process is asked to end, so that it can say what it was doing.

    By SIGTERM or Ctrl-C: a KeyboardInterrupt that is raised inside is none of the user's.
    minutes: time limit of the job, by which a time-out is told from a cancellation.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started = time.monotonic()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:  # once is enough: the second would interrupt the cleaning up
            signal.signal(each, signal.SIG_IGN)
        late = minutes is not None and time.monotonic() - started > 60 * minutes - _GRACE
        raise Stopped(TIMEOUT if late else CANCELLED)

    before = _handlers()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, stop)
    try:
        yield
    finally:
        _put_back(before)


class _Unclosable:
    """A standard stream for a tracker, which must not close it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        pass


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back what a tracker may change of the process: working directory, standard streams, handlers of signals."""
    before = _handlers()
    streams: tuple[Any, Any] = _Unclosable(sys.stdout), _Unclosable(sys.stderr)
    with contextlib.chdir(Path.cwd()), redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            yield
        except Stopped:
            before = {}  # a second signal is to be ignored
            raise
        finally:
            _put_back(before)


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _put_back(handlers: Mapping[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:  # not installed by Python
                signal.signal(number, handler)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
