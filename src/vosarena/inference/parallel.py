"""How many tracking jobs run at once on this machine, because they slow each other down."""

import contextlib
import fcntl
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
        self._own: int | None = None
        with contextlib.suppress(OSError):  # tracking does not depend on it
            self._folder.mkdir(exist_ok=True)
            self._own = self._take_number()
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is None:
            return
        os.utime(self._own)
        fcntl.flock(self._own, fcntl.LOCK_UN)  # closing is not enough if the tracker left a process
        os.close(self._own)

    def numbers(self, since: float | None = None) -> set[str]:
        """Return the numbers of the jobs that run now, this one included; none if the folder cannot be used.

        Args:
            since: A time, as returned by `time.time()`. Jobs that started or ended after it are included.
        """
        try:
            files = list(self._folder.iterdir()) if self._own is not None else []
            return {path.name for path in files if _runs(path) or (since and path.stat().st_mtime > since)}
        except OSError:
            return set()

    def _take_number(self) -> int:
        number = 0
        while not _lock(file := os.open(self._folder / str(number), os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX):
            os.close(file)
            number += 1
        os.utime(file)
        return file


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
