"""When a training has to stop before it is finished: a signal, the end of its job, or a file that asks for it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

from vosarena.base.errors import TrackerError

logger = logging.getLogger(__name__)

# A job that is cancelled or preempted gets SIGTERM. SIGURG, which every other process ignores, is what a scheduler can
# be told to send before the time limit (`sbatch --signal=URG@300`).
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGURG)
_RESERVE = 30.0  # seconds before the end of a job that are kept free, besides those for an iteration and a checkpoint


class Stop(IntEnum):
    """Why a training stops before its end; of several reasons, the highest counts."""

    NO = 0
    LIMIT = 1  # the time limit of the job: the scheduler is asked to start it again
    ASKED = 2  # cancelled, preempted or interrupted

    @property
    def words(self) -> str:
        """What happened, for people."""
        return "before its time limit" if self is Stop.LIMIT else "because it was asked to"


class Watch:
    """Looks for reasons to stop, between two iterations.

    Args:
        file: File whose existence is a reason; it holds the number of the reason.
        end: When the job ends, on the clock of `time.monotonic`; None if there is no limit.
    """

    def __init__(self, file: Path, end: float | None = None) -> None:
        self.file, self.end = file, end
        self._signalled = Stop.NO

    def note(self, number: int) -> None:
        """Remember a signal."""
        reason = Stop.LIMIT if number == signal.SIGURG else Stop.ASKED
        self._signalled = max(self._signalled, reason)

    def reason(self, needed: float = 0.0) -> Stop:
        """Return the reason to stop now, `NO` if there is none.

        Args:
            needed: Seconds that the next iteration and a checkpoint take.
        """
        found = self._signalled
        with contextlib.suppress(OSError, ValueError):
            found = max(found, Stop(int(self.file.read_text())))
        if not found and self.end is not None and time.monotonic() + needed + _RESERVE > self.end:
            found = Stop.LIMIT
        return found


@contextlib.contextmanager
def noted_signals(note: Callable[[int], object]) -> Iterator[None]:
    """Call a function for each signal of SIGNALS instead of ending the process. In other threads nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _: note(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_of_job() -> float | None:
    """Return when the SLURM job of this process ends, on the clock of `time.monotonic`; None if there is no limit."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%L"]
    try:
        left = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("the end of this job is not known (%s), so the training cannot stop in time", error)
        return None
    seconds = seconds_of(left)
    return None if seconds is None else time.monotonic() + seconds


def seconds_of(left: str) -> float | None:
    """Return the seconds of a time as SLURM writes it (`2-03:04:05`, `04:05`); None for anything else.

    Examples:
        >>> seconds_of("1-00:01:05")
        86465.0
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", left.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def queue_again() -> None:
    """Ask SLURM to start the job of this process again, and wait for the end.

    Raises:
        TrackerError: This is not a job of SLURM, or it may not be queued again.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise TrackerError("no scheduler")
    try:
        subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise TrackerError(f"the job cannot be queued again ({' '.join(said.split())})") from None
    logger.info("the job is queued again")
    time.sleep(600)
    raise TrackerError("the scheduler queued the job again but did not end it")
