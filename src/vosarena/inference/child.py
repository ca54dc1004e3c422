"""Sequences tracked in a child process, so that whatever ends it (os._exit, a signal) fails one sequence only."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from vosarena.base.errors import TrackerError, VosarenaError
from vosarena.inference.run import Job, Outcome, track_sequences
from vosarena.predictions.failures import Stopped, stopped_by_signals
from vosarena.predictions.store import Store

_PATIENCE = 30.0  # seconds for a child to clean up


def track_in_child(
    names: Sequence[str], images: Path, annotations: Path, job: Job, store: Store, resize: str = "never"
) -> Outcome:
    """`track_sequences` in a child process; one that ends without a word fails its sequence, and another goes on.

    Raises TrackerError as `track_sequences` does, and if this process is asked to end.
    """
    dead: dict[str, str] = {}
    while True:
        rest = [name for name in names if name not in dead]
        answer, end = _ask_child(rest, images, annotations, job, store, resize)
        if isinstance(answer, Outcome):
            answer.failed |= dead
            return answer
        if answer is not None:
            raise answer
        found = {name: end for name in rest if store.bury(name, end)}
        if not found:
            raise TrackerError(f"{end} before its first sequence")
        dead |= found


def _ask_child(*arguments: object) -> tuple[Outcome | VosarenaError | None, str]:
    """The answer of a child, None if it ended without one, and a sentence about its end."""
    context = multiprocessing.get_context("spawn")  # a fork would share what CUDA and other threads hold
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, *arguments))
    answer = None
    try:
        with stopped_by_signals():
            on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # only this process hears it, and ends the child
            child.start()
            signal.signal(signal.SIGINT, on_ctrl_c)
            sender.close()
            answer = receiver.recv()
    except EOFError:
        pass
    except Stopped as error:
        child.terminate()
        answer = TrackerError(f"{error}; what is finished is kept")
    child.join(_PATIENCE)
    child.kill()
    child.join()
    code = child.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended itself with exit code {code}"
    return answer, f"the process of the tracker {how}"


def _answer(sender: Connection, *arguments: object) -> None:
    """What the child runs."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ended_with_all_threads():
        try:
            sender.send(track_sequences(*arguments))  # type: ignore[arg-type]
        except Stopped as error:
            sender.send(TrackerError(str(error)))
        except VosarenaError as error:
            sender.send(error)


@contextmanager
def ended_with_all_threads() -> Iterator[None]:
    """End this process after the block, also where a tracker left threads or processes that would keep it alive."""
    code: int | None = None
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        left = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        children = multiprocessing.active_children()
        if code is not None and (children or not all(thread.daemon for thread in left)):
            for child in children:
                child.terminate()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
