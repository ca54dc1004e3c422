"""How many tracking jobs run at once on this machine, because they slow each other down."""

import fcntl
import itertools
import os
import tempfile
from pathlib import Path
from typing import Self


class ParallelJobs:
    """The tracking jobs of this user on this machine, of which this one is counted until it is left.

    Every job locks a file whose name is the lowest number that no other job has, and touches it when it starts and
    ends. So the jobs that ran during a time have as many numbers as jobs ran at once. The kernel releases the lock of a
    process that was killed.
    """

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.gettempdir()) / f"vosarena-jobs-{os.getuid()}"  # on a local disk
        self._folder.mkdir(exist_ok=True)
        for number in itertools.count():
            self._own = os.open(self._folder / str(number), os.O_RDWR | os.O_CREAT, 0o600)
            if _lock(self._own, fcntl.LOCK_EX):
                break
            os.close(self._own)
        os.utime(self._own)
        return self

    def __exit__(self, *_: object) -> None:
        os.utime(self._own)
        fcntl.flock(self._own, fcntl.LOCK_UN)  # closing is not enough if the tracker left a process
        os.close(self._own)

    def numbers(self, since: float | None = None) -> set[str]:
        """Return the numbers of the jobs that run now, this one included.

        Args:
            since: A time, as returned by `time.time()`. Jobs that started or ended after it are included.
        """
        return {path.name for path in self._folder.iterdir() if _runs(path) or (since and path.stat().st_mtime > since)}


def _runs(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY)
    try:
        return not _lock(file, fcntl.LOCK_SH)  # shared, because others look at the same time
    finally:
        os.close(file)


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
