"""Sequences tracked in a child process, so that a crash (os._exit, a signal) fails one sequence only."""

import logging
import multiprocessing
import signal
from dataclasses import replace
from multiprocessing.connection import Connection

from vosarena.base.errors import BrokenDeviceError, Stopped, TrackerError, VosarenaError
from vosarena.inference.job import ShardTask
from vosarena.inference.process import ended_with_all_threads, stopped_by_signals
from vosarena.inference.run import Outcome, track_sequences

_PATIENCE = 30.0  # seconds for a child to clean up


def track_in_child(task: ShardTask) -> Outcome:
    """Track sequences in a child process. If it dies or loses its GPU, its sequence has failed; a new one goes on.

    Raises:
        TrackerError: The model cannot be loaded, or this process was asked to end.
    """
    died: dict[str, str] = {}
    while True:
        rest = tuple(name for name in task.sequences if name not in died)
        answer, end = _ask_child(replace(task, sequences=rest))
        if isinstance(answer, Outcome):
            answer.failed |= died
            return answer
        if isinstance(answer, BrokenDeviceError):
            died[answer.sequence] = answer.reason
            continue
        if answer is not None:
            raise answer
        found = {name: end for name in rest if task.open_store().record_death(name, end)}
        if not found:
            raise TrackerError(f"{end} before its first sequence")
        died |= found


def _ask_child(task: ShardTask) -> tuple[Outcome | VosarenaError | None, str]:
    """Return the answer of a child, None if it ended without one, and a sentence about its end."""
    context = multiprocessing.get_context("spawn")  # a fork would share the state of CUDA and of other threads
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, task))
    answer: Outcome | VosarenaError | None = None
    try:
        with stopped_by_signals():
            on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child ignores it, this process ends it
            child.start()
            signal.signal(signal.SIGINT, on_ctrl_c)
            sender.close()
            answer = receiver.recv()
    except EOFError:
        pass
    except Stopped as error:
        child.terminate()
        answer = TrackerError(f"{error}; finished sequences are kept")
    child.join(_PATIENCE)
    child.kill()
    child.join()
    code = child.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended itself with exit code {code}"
    return answer, f"the process of the tracker {how}"


def _answer(sender: Connection, task: ShardTask) -> None:
    """Run in the child: track the sequences and send the outcome or the error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ended_with_all_threads():
        try:
            sender.send(track_sequences(task))
        except Stopped as error:
            sender.send(TrackerError(str(error)))
        except VosarenaError as error:
            sender.send(error)
