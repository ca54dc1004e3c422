"""The process that tracks: how it is asked to end, how it ends, and what a tracker may change of it."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from vosarena.base.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_START_UP = 30.0  # seconds of a job before this library runs in it


@contextmanager
def stopped_by_signals(minutes: float | None = None) -> Iterator[None]:
    """Raise Stopped in the main thread on SIGTERM or Ctrl-C, so that the process can record what it was doing.

    A KeyboardInterrupt that is raised inside the block therefore comes from a tracker, not from the user.

    Args:
        minutes: Time limit of the job. A signal near its end counts as a time-out, an earlier one as a cancellation.

    Raises:
        Stopped: The process was asked to end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started = time.monotonic()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:  # a second signal would interrupt the clean-up
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(minutes is not None and time.monotonic() - started > 60 * minutes - _START_UP)

    before = _handlers()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, stop)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def restored_process() -> Iterator[None]:
    """Restore what a tracker may change of the process: working directory, standard streams, signal handlers."""
    before = _handlers()
    streams: tuple[Any, Any] = _Unclosable(sys.stdout), _Unclosable(sys.stderr)
    with contextlib.chdir(Path.cwd()), redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            yield
        except Stopped:
            before = {}  # a second signal must stay ignored
            raise
        finally:
            _restore(before)


@contextmanager
def ended_with_all_threads() -> Iterator[None]:
    """End this process after the block, even if a tracker left threads or processes that would keep it alive."""
    code: int | None = None
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        children = multiprocessing.active_children()
        if code is not None and (children or not all(thread.daemon for thread in threads)):
            for child in children:
                child.terminate()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


class _Unclosable:
    """A standard stream that a tracker cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        pass


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:  # None: not installed by Python
                signal.signal(number, handler)
